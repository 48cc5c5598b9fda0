"""The real LPIPS, and the AlexNet and VGG16 features under it, without any model hub.

The network is the `lpips` package's own class. Its trunk and linear layers are filled from the asset
`"lpips"`, numpy pickles of the published weights, by an unpickler that can build arrays and nothing else.
"""

import pickle
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragstudy import assets
from dragstudy._torchvision import require

if TYPE_CHECKING:
    from lpips import LPIPS

Trunk = Literal["alex", "vgg"]
_ARRAY_GLOBALS = {("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}
_FILES = {"alex": "alexnet.ckpt", "vgg": "vgg16.ckpt"}


def lpips_model(net: Trunk = "alex") -> "LPIPS":
    """Build LPIPS v0.1 with its published weights, frozen and in evaluation mode.

    Zhang et al. 2018, Eq. 1. `"alex"` is the metric of the drag papers (image fidelity is 1 - LPIPS); `"vgg"`
    is the usual perceptual loss. `model(a, b)` takes images `(b, 3, h, w)` in [-1, 1], each side at least
    32 px, and returns distances `(b, 1, 1, 1)`. torch's global random state stays as it was.

    Args:
        net: Trunk, `"alex"` or `"vgg"`.

    Returns:
        The model, on the CPU in float32; gradients reach its inputs, not its weights.

    Raises:
        ValueError: If `net` is neither `"alex"` nor `"vgg"`.
        AssetMissing: If the asset `"lpips"` was not fetched.
    """
    if net not in _FILES:
        raise ValueError(f"net must be 'alex' or 'vgg', got {net!r}")
    weights = _read_pickle(assets.locate("lpips", _FILES[net]))
    require()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips calls torchvision by arguments that it deprecated
        import lpips

        # On the meta device the unused classifier of the trunk costs no time, memory or random numbers.
        with torch.device("meta"):
            model = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
    model.scaling_layer = lpips.lpips.ScalingLayer()
    trunk = next(layers for name, layers in weights.items() if not name.startswith("NetLin"))
    convolutions = [layer for layer in model.net.modules() if isinstance(layer, nn.Conv2d)]
    for i, layer in enumerate(convolutions):
        _fill(layer, **trunk[f"Conv_{i}"])
    for i, head in enumerate(model.lins):
        _fill(head.model[-1], **weights[f"NetLinLayer_{i}"]["Conv_0"])
    return model.eval().requires_grad_(False)


def image_features(model: "LPIPS", image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c hk wk"]]:
    """Activations of the trunk, for losses and correspondence.

    Args:
        model: What `lpips_model` returned.
        image: Images in [-1, 1], each side at least 32 px.

    Returns:
        Five feature maps, not normalised, fine to coarse. For `"vgg"`: relu1_2, relu2_2, relu3_3, relu4_3,
        relu5_3 at 1, 1/2, 1/4, 1/8, 1/16 of the size; for `"alex"`: relu1 to relu5.
    """
    return list(model.net(model.scaling_layer(image)))


class _ArraysOnly(pickle.Unpickler):
    """Unpickler for nested dicts of numpy arrays; refuses every other global."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core", "numpy._core")  # its name since numpy 2
        if (module, name) not in _ARRAY_GLOBALS:
            raise pickle.UnpicklingError(f"weights may hold numpy arrays only, found {module}.{name}")
        return super().find_class(module, name)


def _read_pickle(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return _ArraysOnly(file).load()


def _fill(layer: nn.Conv2d, kernel: np.ndarray, bias: np.ndarray | None = None) -> None:
    """Give a convolution its weights; `kernel` is `(h, w, in, out)`."""
    layer.weight = nn.Parameter(torch.tensor(np.asarray(kernel).transpose(3, 2, 0, 1)).contiguous())
    if bias is not None:
        layer.bias = nn.Parameter(torch.tensor(np.asarray(bias)))
