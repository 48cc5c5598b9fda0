"""All ways to draw pseudo drags, by name: InstantDrag's configurations, and what a search begins with."""

import torch
from torch import Tensor

from dragstudy.sparse import SAMPLER_CONFIGS, SamplerConfig, sample_drags
from dragstudy.watershed import sample_watershed

# No grid and no special points: the one cell's pixel would be first anyway. As many points as in "config2".
UNIFORM = SamplerConfig(grid_size=1, max_points=50)
WATERSHED_POINTS, WATERSHED_SPACING = 50, 15 / 256  # the spacing as a share of the flow's width
SAMPLERS = (*SAMPLER_CONFIGS, "watershed", "uniform")


def draw_pseudo_drags(
    flow: Tensor,
    mask: Tensor | None,
    sampler: SamplerConfig | str = "config2",
    *,
    generator: torch.Generator,
    landmarks: Tensor | None = None,
) -> Tensor:
    """Draw pseudo drags from a dense flow by any of `SAMPLERS`, or by a configuration of one's own.

    Args:
        flow: Dense forward flow in pixels, shape `(2, h, w)`.
        mask: 1 on the object, 0 on the background, shape `(1, h, w)`; `None` is all object.
        sampler: A published configuration; `"uniform"`, up to 50 pixels of the object, each as likely as any
            other; `"watershed"`, up to 50 of `sample_watershed`'s points; or a `SamplerConfig`.
        generator: Source of all randomness.
        landmarks: As in `sample_drags`.

    Returns:
        The flow at the points drawn and zero elsewhere, `(2, h, w)`.

    Raises:
        ValueError: If there is no such sampler.
    """
    sampler = find_sampler(sampler)
    if sampler == "watershed":
        k = torch.randint(1, WATERSHED_POINTS + 1, (), generator=generator, device=generator.device)
        spacing = 2 * round(WATERSHED_SPACING * flow.shape[-1] / 2) + 1
        return sample_watershed(flow, mask, k=int(k), generator=generator, spacing=spacing)
    return sample_drags(flow, mask, sampler, generator=generator, landmarks=landmarks)


def find_sampler(sampler: SamplerConfig | str) -> SamplerConfig | str:
    """The configuration of a sampler by its name; one of one's own, and `"watershed"`, as they are.

    Raises:
        ValueError: If there is no such sampler.
    """
    if isinstance(sampler, SamplerConfig) or sampler == "watershed":
        return sampler
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, got {sampler!r}")
    return UNIFORM if sampler == "uniform" else SAMPLER_CONFIGS[sampler]
