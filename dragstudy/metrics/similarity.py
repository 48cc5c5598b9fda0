"""How alike two images are to a network that says what they show: CLIP's similarity, and a stand-in for it.

Each network turns an image into one vector; the similarity is the vectors' cosine. InstantDrag's Table 1 and
DragBench's evaluator take CLIP ViT-B/32, whose weights no package carries: give a folder or a hub id. What is
here is AugNet's ResNet-50, another network with another scale: its numbers go by another name.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from dragstudy import _torchvision, assets
from dragstudy.images import to_pil, to_tensor

CLIP = "openai/clip-vit-base-patch32"  # the hub's name of DragBench's
_CLIP_MEAN, _CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_IMGSIM_SIDE = 350  # the shorter side of what AugNet's network is shown, px

Embedding = Callable[[Tensor], Tensor]


def image_similarity(
    images: Float[Tensor, "b 3 h w"], references: Float[Tensor, "b 3 h2 w2"], embedding: Embedding
) -> Float[Tensor, " b"]:
    """Cosine of the embeddings of each image and its reference, `(b,)`; 1 where they are equal.

    Args:
        images: In [0, 1].
        references: In [0, 1].
        embedding: From images in [0, 1] to vectors `(b, d)`: `ClipEmbedding(...)` or `ImgsimEmbedding()`.

    Example:
        >>> grey, mean = torch.full((1, 3, 2, 2), 0.5), lambda images: images.mean(dim=(2, 3))
        >>> round(image_similarity(grey, grey / 2, mean).item(), 6)
        1.0
    """
    return F.cosine_similarity(embedding(images), embedding(references), dim=1)


class ClipEmbedding(nn.Module):
    """The image half of a CLIP model (Radford et al. 2021), with its own preprocessing.

    As OpenAI's code does it: to 8 bits, the shorter side to the network's size (bicubic, by Pillow), the
    middle square.

    Args:
        source: A folder with a `CLIPModel` as transformers saves it, or a hub id such as `CLIP`.

    Raises:
        ValueError: If there is no such model.
    """

    def __init__(self, source: str | Path) -> None:
        super().__init__()
        _torchvision.require()  # transformers imports torchvision
        from transformers import CLIPVisionModelWithProjection

        try:
            self.network = CLIPVisionModelWithProjection.from_pretrained(str(source))
        except OSError as error:
            raise ValueError(
                f"no CLIP model at {str(source)!r}: give a folder that transformers saved, or a hub id "
                f"such as {CLIP!r} where the hub can be reached"
            ) from error
        self.requires_grad_(False).eval()

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Vectors of images in [0, 1], not of unit length."""
        side = self.network.config.image_size
        squares = torch.cat([_middle_square(image, side) for image in images])
        pixels = _normalize(squares, _CLIP_MEAN, _CLIP_DEVIATION).to(self.network.device, self.network.dtype)
        return self.network(pixels).image_embeds.float()


class ImgsimEmbedding(nn.Module):
    """The ResNet-50 of AugNet (Chen et al. 2021), trained without labels to know an image's variants again.

    A stand-in for CLIP where that cannot be had, and not the same measure.

    Raises:
        AssetMissing: If the asset `"imgsim"` was not fetched.
    """

    def __init__(self) -> None:
        super().__init__()
        _torchvision.require()
        from torchvision.models import resnet50

        with torch.device("meta"):  # no time, memory or random numbers for weights that are read right after
            self.network = resnet50(weights=None)
            self.network.fc = nn.Linear(2048, 768)
        state = torch.load(assets.locate("imgsim", "model.pth"), map_location="cpu", weights_only=True)
        state = {name.removeprefix("module.").removeprefix("pre."): values for name, values in state.items()}
        self.network.load_state_dict(state, assign=True)
        self.requires_grad_(False).eval()

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 768"]:
        """Vectors of images in [0, 1]; each side comes from the image, the shorter one is made 350 px."""
        h, w = images.shape[-2:]
        size = tuple(max(int(side * _IMGSIM_SIDE / min(h, w)), _IMGSIM_SIDE) for side in (h, w))
        resized = F.interpolate(images.float(), size=size, mode="bilinear", align_corners=False)
        return self.network(_normalize(resized, _MEAN, _DEVIATION)).tanh()


def _middle_square(image: Float[Tensor, "3 h w"], side: int) -> Float[Tensor, "1 3 side side"]:
    picture = to_pil(image)
    scale = side / min(picture.size)
    width, height = (max(int(length * scale), side) for length in picture.size)
    left, top = round((width - side) / 2), round((height - side) / 2)
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    return to_tensor(resized.crop((left, top, left + side, top + side)))


def _normalize(images: Tensor, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Tensor:
    centre, spread = (images.new_tensor(values).view(1, 3, 1, 1) for values in (mean, deviation))
    return (images - centre) / spread
