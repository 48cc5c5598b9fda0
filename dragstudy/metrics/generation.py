"""How alike two sets of images are: Fréchet and kernel inception distance (FID and KID).

Every image becomes 2048 numbers, the last pooled activations of Inception v3. FID compares the two sets'
means and covariances, KID their whole distributions. FID grows as sets shrink, even between two halves of one
set (a covariance of full rank takes more than 2048 images); KID is unbiased at any size. So with a few dozen
images KID and its interval are the numbers to read.
"""

import warnings
from collections.abc import Mapping
from itertools import product

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dragstudy import _torchvision, assets

_torchvision.require()  # torchmetrics imports torchvision

from torchmetrics.image.kid import poly_kernel  # noqa: E402

SIDE = 299  # of the images that Inception was trained on, px


class InceptionFeatures(nn.Module):
    """The Inception v3 of 2015-12-05 with which FID is defined, from images to its pooled activations.

    It can be the `feature` of torchmetrics' `FrechetInceptionDistance` and `KernelInceptionDistance`, too
    (in `torchmetrics.image.fid` and `.kid`); those then take images in [0, 1]. The file is TorchScript: its
    weights and layers, nothing that runs on loading.

    Raises:
        AssetMissing: If the asset `"inception"` was not fetched.
    """

    num_features = 2048

    def __init__(self) -> None:
        super().__init__()
        path = str(assets.locate("inception", "default_1.pt"))
        with warnings.catch_warnings():
            # torch now prefers another format, but this is the one in which the network is published
            warnings.filterwarnings("ignore", "`torch.jit.load`", DeprecationWarning)
            self.network = torch.jit.load(path, map_location="cpu")
        self.requires_grad_(False).eval()

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 2048"]:
        """Features of images in [0, 1], taken at 8 bits as if read from files."""
        return self.network(_inception_input(images))


def _inception_input(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 299 299"]:
    """Images in [0, 1] as Inception saw them in training: at 299 x 299, in [-1, 1).

    Pixel k is read at k * w / 299, by the rule of the first TensorFlow: the published FIDs were computed so,
    although it moves the image by a fraction of a pixel against the half-pixel rule of everything else here.
    """
    levels = (255 * images.float().clamp(0, 1)).round()
    h, w = images.shape[-2:]
    k = torch.arange(SIDE, device=images.device) / SIDE
    y, x = torch.meshgrid(2 * k * h / (h - 1) - 1, 2 * k * w / (w - 1) - 1, indexing="ij")
    grid = torch.stack([x, y], dim=-1).expand(len(images), -1, -1, -1)
    return (F.grid_sample(levels, grid, padding_mode="border", align_corners=True) - 128) / 128


def frechet_distance(features: Float[Tensor, "n d"], references: Float[Tensor, "m d"]) -> float:
    r"""FID (Heusel et al. 2017, Eq. 6): the distance of two Gaussians with the sets' means and covariances.

    $$|\mu_1 - \mu_2|^2 + \mathrm{tr}(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2})$$

    The last trace is the sum of the singular values of $A B^T$, where $\Sigma_1 = A^T A$ and
    $\Sigma_2 = B^T B$: exact for sets of any size and fast for small ones, for which torchmetrics'
    `FrechetInceptionDistance` takes the eigenvalues of a 2048 x 2048 matrix of low rank.

    Raises:
        ValueError: If a set has fewer than two images.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 1.0]])
        >>> round(frechet_distance(x + torch.tensor([3.0, 4.0]), x), 6)
        25.0
    """
    _check(features, references)
    first, second = features.double(), references.double()
    means = first.mean(dim=0), second.mean(dim=0)
    a, b = (_factor(x - mean) for x, mean in zip((first, second), means, strict=True))
    shared = torch.linalg.matrix_norm(a @ b.T, ord="nuc")
    return ((means[0] - means[1]).square().sum() + a.square().sum() + b.square().sum() - 2 * shared).item()


def kernel_distance(
    features: Float[Tensor, "n d"],
    references: Float[Tensor, "m d"],
    *,
    generator: torch.Generator,
    confidence: float = 0.95,
    resamples: int = 1000,
) -> tuple[float, float, float]:
    """KID (Binkowski et al. 2018, Sec. 4): the squared maximum mean discrepancy, kernel (x · y / d + 1)^3.

    Pairs of one image with itself are left out, which makes the estimate unbiased: between sets of one origin
    it is zero on average, so it can be negative. Instead of many random subsets, as torchmetrics takes, all
    images are compared once.

    Args:
        features: Of one set, `(n, d)`.
        references: Of the other, `(m, d)`.
        generator: Source of the interval's random weights.
        confidence: Probability that the interval is meant to hold the value with.
        resamples: Draws of weights.

    Returns:
        The distance, and lower and upper end of its Bayesian bootstrap interval (Rubin 1981: every image gets
        an exponential weight); for sets that hardly differ it is wider than it says. It is about the drawing
        of images: frames of one clip are no independent draws, so for them it is too narrow.

    Raises:
        ValueError: If a set has fewer than two images.
    """
    _check(features, references)
    x, y = features.double(), references.double()
    within_x, within_y, between = poly_kernel(x, x), poly_kernel(y, y), poly_kernel(x, y)
    weights_x, weights_y = (
        torch.cat([torch.ones(1, n), torch.empty(resamples, n).exponential_(generator=generator)]).to(x)
        for n in (len(x), len(y))
    )
    cross = ((weights_x @ between) * weights_y).sum(dim=1) / (weights_x.sum(dim=1) * weights_y.sum(dim=1))
    values = _mean_of_pairs(within_x, weights_x) + _mean_of_pairs(within_y, weights_y) - 2 * cross
    ends = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2]).to(values)
    low, high = values[1:].quantile(ends).tolist()
    return values[0].item(), low, high


def compare_sets(
    sets: Mapping[str, Float[Tensor, "n d"]], references: Mapping[str, Float[Tensor, "m d"]], *, seed: int = 0
) -> pd.DataFrame:
    """FID and KID of each set against each reference set.

    Args:
        sets: Features by the name of the set.
        references: Features by the name of the reference.
        seed: Of the intervals' random weights.

    Returns:
        A frame of one row a pair of sets: `images`, `reference`, `n` and `n_reference` images, `fid`, `kid`
        and `low`, `high`, the ends of KID's 95 % interval.
    """
    rows = []
    for (name, features), (reference, others) in product(sets.items(), references.items()):
        generator = torch.Generator().manual_seed(seed)
        kid, low, high = kernel_distance(features, others, generator=generator)
        counts = {"n": len(features), "n_reference": len(others)}
        distances = {"fid": frechet_distance(features, others), "kid": kid, "low": low, "high": high}
        rows.append({"images": name, "reference": reference} | counts | distances)
    return pd.DataFrame(rows)


def _factor(centred: Float[Tensor, "n d"]) -> Float[Tensor, "k d"]:
    """A matrix whose `A.T @ A` is the covariance, with at most as many rows as columns."""
    scaled = centred / (len(centred) - 1) ** 0.5
    return torch.linalg.qr(scaled, mode="r").R if len(scaled) > scaled.shape[1] else scaled


def _mean_of_pairs(kernel: Float[Tensor, "n n"], weights: Float[Tensor, "r n"]) -> Float[Tensor, " r"]:
    """Weighted mean of a kernel over the pairs of different images, for each row of weights."""
    off_diagonal = kernel - kernel.diag().diag()
    total = weights.sum(dim=1).square() - weights.square().sum(dim=1)
    return ((weights @ off_diagonal) * weights).sum(dim=1) / total


def _check(features: Tensor, references: Tensor) -> None:
    if min(len(features), len(references)) < 2:
        raise ValueError(f"each set needs at least two images, got {len(features)} and {len(references)}")
