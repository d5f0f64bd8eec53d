"""How far apart two sets of pictures are, by the features that a frozen network has of them.

Numbers compare only with those of the same network, layer, sizes of pictures and, for the Fréchet distance,
which falls as sets grow, sizes of sets. Published FID and KID are of Inception-v3's last pooling.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from nst import check
from nst.features import FeatureNetwork
from nst.ops.equalized import at_least_float32

__all__ = ["frechet_distance", "kernel_distance", "pooled_features"]

_CHUNK_ROWS = 256
"""Rows of the kernel's matrix that exist at once."""


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Squared Fréchet distance of the Gaussians fitted to two sets of features (N, C) and (M, C): FID.

    Heusel et al. 2017, eq. 6: |mu_x - mu_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)), with covariances over N - 1
    and M - 1, which may be singular, in float64 on the CPU. At least 0; for equal sets, in whatever order, 0 up
    to rounding (some 1e-15 of tr C).

    Raises:
        ValueError: a set is not (N, C) of at least two rows, not finite, or not as wide as the other.
    """
    x, y = _checked(x, y)
    shift = (x.mean(0) - y.mean(0)).square().sum()
    root_x, root_y = _root_of_covariance(x), _root_of_covariance(y)
    # With C = R^T R, C_x C_y has the eigenvalues of S S^T with S = R_x R_y^T, and their roots are the singular
    # values of S. Roots of eigenvalues would lose half of the digits: where covariances are singular, rounding
    # of 1e-16 becomes 1e-8, once for each missing dimension.
    root_trace = torch.linalg.svdvals(root_x @ root_y.mT).sum()
    spread = root_x.square().sum() + root_y.square().sum() - 2 * root_trace
    return max(0.0, float(shift + spread))


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """Squared maximum mean discrepancy of two sets of features (N, C) and (M, C): KID, which may be negative.

    The kernel is k(a, b) = (a.b / C + 1)^3 (Binkowski et al. 2018). In float64 on the CPU, over all rows: no
    random subsets are drawn. Memory is O(M) beside the features.

    Sets of equal size are taken as pairs: the mean over i != j of k(x_i, x_j) + k(y_i, y_j) - 2 k(x_i, y_j),
    the U-statistic of Gretton et al. 2012, eq. 4. Equal sets in equal order have 0, and a picture's
    likeness to its own stylized version does not count. The value depends on who is paired with whom, a little:
    by what the N pairs contribute to the N^2 terms. Sets of different sizes have no pairs: theirs is the
    unbiased estimate for independent sets (eq. 3 there), whose cross term is the mean of all k(x_i, y_j), which
    the authors' code has as its default.

    Raises:
        ValueError: a set is not (N, C) of at least two rows, not finite, or not as wide as the other.
    """
    x, y = _checked(x, y)
    within = _mean_kernel(x, x, pairs=False) + _mean_kernel(y, y, pairs=False)
    return within - 2 * _mean_kernel(x, y, pairs=len(x) != len(y))


@torch.no_grad()
def pooled_features(network: FeatureNetwork, layer: str, images: Iterable[Tensor]) -> Tensor:
    """Mean over positions of the activations of `layer`, or the logits as they are: (N, C) on the CPU.

    Args:
        images: RGB (3, H, W) in [0, 1], of any sizes. Each stands alone in its pass, so that its features do
            not depend on its neighbors, and is let go after it: they may be read one after the other.

    Raises:
        OptionError: `layer` is none of those that the network was built for.
        ValueError: no images, or one that is of another shape, type or range.
        ImageTooSmall: an image vanishes before the network's deepest layer.
    """
    check.one_of("layer", layer, network.layers)
    rows = []
    for index, image in enumerate(images):
        if image.ndim != 3 or len(image) != 3 or not image.is_floating_point():
            raise ValueError(
                f"image {index}: must be of floating point, (3, H, W), but is {_said(image)} of {image.dtype}"
            )
        network.check_size(image)
        low, high = (float(bound) for bound in image.aminmax())
        if not (low >= 0 and high <= 1):
            raise ValueError(f"image {index}: must be in [0, 1], but is in [{low:g}, {high:g}]")
        found = network(image[None].to(network.mean))[layer]
        wide = at_least_float32(found)
        rows.append((wide.mean((2, 3)) if wide.ndim == 4 else wide).cpu())
    if not rows:
        raise ValueError("images: at least one is needed")
    return torch.cat(rows)


def _checked(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64 on the CPU."""
    for name, features in (("x", x), ("y", y)):
        if features.ndim != 2 or len(features) < 2 or features.shape[1] < 1:
            raise ValueError(f"{name}: must be (N, C) of at least two rows, but is {_said(features)}")
        strange = int((~features.isfinite()).any(1).sum())
        if strange:
            raise ValueError(f"{name}: {strange} of {len(features)} rows are not finite")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y: must have as many columns, but are {_said(x)} and {_said(y)}")
    return x.detach().to("cpu", torch.float64), y.detach().to("cpu", torch.float64)


def _said(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _root_of_covariance(features: Tensor) -> Tensor:
    """R (min(N, C), C) of features (N, C), so that R^T R is their covariance over N - 1."""
    centered = (features - features.mean(0)) / math.sqrt(len(features) - 1)
    root: Tensor = torch.linalg.qr(centered, mode="r").R
    return root


def _mean_kernel(x: Tensor, y: Tensor, *, pairs: bool) -> float:
    """Mean of k(x_i, y_j) over all i and j, or those with i != j."""
    total, channels = 0.0, x.shape[1]
    for start in range(0, len(x), _CHUNK_ROWS):
        kernel = (x[start : start + _CHUNK_ROWS] @ y.mT).div_(channels).add_(1).pow_(3)
        if not pairs:
            kernel.diagonal(start).zero_()
        total += float(kernel.sum())
    return total / (len(x) * (len(y) if pairs else len(y) - 1))
