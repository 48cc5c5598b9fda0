"""The noise priors of requests: what latents a pipeline's sampling starts from."""

from collections.abc import Sequence

import torch
from diffusers import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from dragstudy.pipelines.base import Request
from dragstudy.priors import noise_prior, plan_moves


def apply_prior(
    name: str,
    noise: Tensor,
    source: Tensor,
    requests: Sequence[Request],
    scheduler: SchedulerMixin,
    generator: torch.Generator | list[torch.Generator] | None,
) -> Tensor:
    r"""Make a noise prior of noise that was drawn, for the first timestep of a sampling.

    The photograph is noised to the timestep that the sampler starts from, by the sampler's noise schedule: of
    one with a zero terminal signal-to-noise ratio nothing is left of it at 999 (diffusers' DPM++ keeps
    $2^{-12}$, in place of 0). The authors' code noises to 999 wherever the sampler starts.

    Args:
        name: A `dragstudy.priors.NoisePrior`.
        noise: Of deviation 1, `(b, c, h, w)`. A prior that needs more noise draws it after this.
        source: Scaled latents of the working images, `(b, c, h, w)`.
        requests: Their drags and masks. An image without mask may change everywhere.
        scheduler: Its timesteps are set.
        generator: What `noise` was drawn from.

    Returns:
        Latents `(b, c, h, w)`, of the noise's type; samplers that count in sigmas want them times
        `init_noise_sigma`, as they do the noise.

    Raises:
        ValueError: If there is no such prior.
    """
    if name == "random":
        return noise
    alpha_bar = float(scheduler.alphas_cumprod[int(scheduler.timesteps[0])])
    wanted = {}
    if name == "mixed":
        wanted["mask"] = torch.stack([editable(request) for request in requests])
    if name == "copy_paste":
        latent_size = noise.shape[-1], noise.shape[-2]
        drags = [request.working_drags for request in requests]
        wanted["moves"] = [
            plan_moves(one.handle_points, one.target_points, one.image_size, latent_size) for one in drags
        ]
        wanted["fresh_noise"] = randn_tensor(noise.shape, generator, noise.device, noise.dtype)
    return noise_prior(name, noise, source.to(noise), alpha_bar, **wanted)


def editable(request: Request) -> Tensor:
    """The mask of a working image, `(1, h, w)`, 1 = may change."""
    mask = request.working_drags.mask
    return torch.ones_like(request.working_image[0, :1]) if mask is None else torch.from_numpy(mask)[None]
