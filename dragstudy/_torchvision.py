"""Import torchvision beside a CPU-only torch.

The torchvision wheel of the package index is built against CUDA. Beside a CPU build of torch its compiled
library does not load, and the import fails because the operators `nms` and `qnms` are then unknown. Nothing
here uses them (only transforms, networks and the flow colour wheel), so their schemas are declared and never
implemented.
"""

from types import ModuleType

import torch

_SCHEMA = "{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library: torch.library.Library | None = None


def require() -> ModuleType:
    """Import torchvision, declaring its missing operators first if torch is a CPU build.

    Call it before importing anything that imports torchvision itself, such as `lpips` or the image
    metrics of torchmetrics. A second call costs nothing.

    Returns:
        The module `torchvision`.

    Raises:
        ImportError: If torchvision is not installed, or its build does not fit this torch.

    Example:
        >>> require().__name__
        'torchvision'
    """
    global _library
    if _library is None and torch.version.cuda is None and torch.version.hip is None:
        _library = torch.library.Library("torchvision", "FRAGMENT")  # dropped declarations would vanish
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                _library.define(_SCHEMA.format(name=name))
    import torchvision

    return torchvision
