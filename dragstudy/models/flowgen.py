"""FlowGen: image and sparse drags to dense optical flow, by a pix2pix GAN.

InstantDrag, Sec. 3.1.1. The generator is a U-Net of 4x4 convolutions that halve and double the resolution,
with GroupNorm; the discriminator judges patches of `[image, sparse flow, dense flow]`.
"""

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from dragstudy.flow import normalize_flow, rescale_to_drags
from dragstudy.interpolation import distance_to_drags, interpolate_sparse, spread_drags

EVERYBODY = 4.0  # logit of the mask before training, where it counts as 1
REACH = 1 / 16  # of a drag, as a share of the shorter side: the plate is kept near it


class FlowGen(ModelMixin, ConfigMixin):
    """The generator: `[image 3, sparse flow 2]` to a dense flow in [-1, 1].

    Published: `base_channels=64, num_downs=8` (54 419 458 parameters at 256 x 256). Sides must be multiples
    of `2 ** num_downs`.

    A skip connection carries the *activated* feature, LeakyReLU(x): the published code activates in place
    before it concatenates, and its weights expect that.

    Args:
        base_channels: Channels of the first level; doubled at each level up to eight times that.
        num_downs: How often the resolution is halved.
        norm_groups: Groups of every GroupNorm.
        dropout: Rate in the decoder levels that have the full number of channels, except the innermost.
        prior: Start from the thin plate through the drags and learn what is missing, and who moves:
            `flow = person * (plate + residual)`, with a mask `person` in [0, 1] that training shows the
            object's. At a drag the residual is 0 and the mask 1, so every dragged point goes where it is
            dragged. It also sees the plate and the drags' weighted mean (`dragstudy.interpolation`), in four
            more channels. Untrained it is the thin plate itself. Not in the paper, whose generator has days
            to learn to spread drags.
    """

    @register_to_config
    def __init__(
        self,
        base_channels: int = 64,
        num_downs: int = 8,
        norm_groups: int = 32,
        dropout: float = 0.5,
        prior: bool = False,
    ):
        super().__init__()
        widths = [base_channels * min(2**level, 8) for level in range(num_downs)]
        inputs = [9 if prior else 5, *widths]
        self.downs = nn.ModuleList(
            nn.Conv2d(inputs[level], inputs[level + 1], 4, stride=2, padding=1) for level in range(num_downs)
        )
        self.down_norms = nn.ModuleList(
            nn.GroupNorm(norm_groups, widths[level]) if 0 < level < num_downs - 1 else nn.Identity()
            for level in range(num_downs)
        )
        outputs = [3 if prior else 2, *widths[:-1]]
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(
                widths[level] * (1 if level == num_downs - 1 else 2), outputs[level], 4, stride=2, padding=1
            )
            for level in range(num_downs)
        )
        self.up_norms = nn.ModuleList(
            nn.GroupNorm(norm_groups, outputs[level]) if level > 0 else nn.Identity()
            for level in range(num_downs)
        )
        self.dropouts = nn.ModuleList(
            nn.Dropout(dropout) if 3 < level < num_downs - 1 else nn.Identity() for level in range(num_downs)
        )
        if prior:
            nn.init.zeros_(self.ups[0].weight)
            nn.init.zeros_(self.ups[0].bias)

    def normalize(self, sparse_flow: Tensor, flow: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Bring drags, and the flow to be learned, from pixels to what the network takes and gives.

        Published (Sec. 3.2.4): each is divided by its own largest magnitude, axis by axis, so the network
        cannot know how much larger than its drags a flow is. With a prior both are divided by the largest
        magnitude of the drags.
        """
        if not self.config.prior:
            return normalize_flow(sparse_flow, "sample")[0], None if flow is None else (
                normalize_flow(flow, "sample")[0]
            )
        size = _largest(sparse_flow)
        return sparse_flow / size, None if flow is None else flow / size

    def predict(self, image: Tensor, sparse_flow: Tensor) -> Tensor:
        """Dense flow in pixels, `(b, 2, h, w)`, from an image in [-1, 1] and drags in pixels."""
        normed = self.normalize(sparse_flow)[0].to(image)
        flow = self(image, normed).float()
        if not self.config.prior:
            return rescale_to_drags(flow, sparse_flow.to(flow))
        return flow * _largest(sparse_flow).to(flow)

    def forward(
        self, image: Tensor, sparse_flow: Tensor, *, return_person: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Predict a dense flow.

        Args:
            image: `(b, 3, h, w)` in [-1, 1].
            sparse_flow: `(b, 2, h, w)`, as `normalize` gives it, zero where there is no drag.
            return_person: With a prior, also return the logits of its mask, `(b, 1, h, w)`.

        Returns:
            `(b, 2, h, w)`, normalised; without a prior in [-1, 1].
        """
        inputs = [image, sparse_flow]
        if self.config.prior:
            plate = interpolate_sparse(sparse_flow)
            inputs += [plate, spread_drags(sparse_flow)]
        x = torch.cat(inputs, dim=1)
        skips = []
        for level, (down, norm) in enumerate(zip(self.downs, self.down_norms, strict=True)):
            x = norm(down(x if level == 0 else F.leaky_relu(x, 0.2)))
            skips.append(F.leaky_relu(x, 0.2))
        for level in reversed(range(len(self.ups))):
            innermost = level == len(self.ups) - 1
            x = F.relu(x if innermost else torch.cat([skips[level], x], dim=1))
            x = self.dropouts[level](self.up_norms[level](self.ups[level](x)))
        if not self.config.prior:
            return torch.tanh(x)
        logits = x[:, 2:].float() + EVERYBODY
        distance = distance_to_drags(sparse_flow) / min(image.shape[-2:])
        free = 1 - torch.exp(-0.5 * (distance / REACH) ** 2)
        person = 1 - (1 - logits.sigmoid() * (1 + math.exp(-EVERYBODY))) * free
        flow = person * (plate + free * x[:, :2])
        return (flow, logits) if return_person else flow


def _largest(sparse_flow: Tensor) -> Tensor:
    """The largest magnitude of each sample's drags, both axes together, `(b, 1, 1, 1)`."""
    return sparse_flow.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)


class PatchDiscriminator(ModelMixin, ConfigMixin):
    """PatchGAN over `[image 3, sparse flow 2, dense flow 2]`; one logit a patch.

    Published: `base_channels=64, num_layers=6` (15 358 145 parameters; 2 x 2 logits at 256 x 256).
    """

    @register_to_config
    def __init__(self, base_channels: int = 64, num_layers: int = 6, norm_groups: int = 32):
        super().__init__()
        widths = [base_channels * min(2**level, 8) for level in range(num_layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(7, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for level in range(1, num_layers + 1):
            stride = 2 if level < num_layers else 1
            layers += [
                nn.Conv2d(widths[level - 1], widths[level], 4, stride=stride, padding=1),
                nn.GroupNorm(norm_groups, widths[level]),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))

    def forward(self, image: Tensor, sparse_flow: Tensor, flow: Tensor) -> Tensor:
        """Logits `(b, 1, h', w')`: positive where a patch of `flow` looks like a real one."""
        return self.layers(torch.cat([image, sparse_flow, flow], dim=1))
