"""What the paper compares FlowGen with: other normalisations of its flows and of its features."""

from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from dragstudy.flow import normalize_flow
from dragstudy.models.flowgen import FlowGen


class FixedFlowGen(FlowGen):
    """A FlowGen whose drags and flows are divided by the picture's size: Sec. 3.2.4's fixed normalisation.

    The paper takes it for FlowDiffusion and advises against it for FlowGen: motions are a few hundredths of
    a picture, so all values crowd at zero.
    """

    def normalize(self, sparse_flow: Tensor, flow: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Divide drags, and the flow to be learned, by width and height."""
        sparse = normalize_flow(sparse_flow, "fixed")[0]
        return sparse, None if flow is None else normalize_flow(flow, "fixed")[0]

    def predict(self, image: Tensor, sparse_flow: Tensor) -> Tensor:
        """Dense flow in pixels, `(b, 2, h, w)`, from an image in [-1, 1] and drags in pixels."""
        normed, size = normalize_flow(sparse_flow, "fixed")
        return self(image, normed.to(image)).float() * size.to(image.device)


class InstanceFlowGen(FlowGen):
    """A FlowGen with pix2pix's InstanceNorm, here with a scale and a shift, in place of GroupNorm."""

    @register_to_config
    def __init__(
        self,
        base_channels: int = 64,
        num_downs: int = 8,
        norm_groups: int = 1,  # of no consequence: each channel is a group
        dropout: float = 0.5,
        prior: bool = False,
    ):
        super().__init__(base_channels, num_downs, norm_groups, dropout, prior)
        use_instance_norm(self)


def use_instance_norm(network: nn.Module) -> None:
    """Let each GroupNorm of a network normalise channel by channel; its weights fit both."""
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = module.num_channels


FLOWGENS: dict[str, type[FlowGen]] = {"own": FlowGen, "fixed": FixedFlowGen, "instance": InstanceFlowGen}
