"""Bilinear pooling: which channels are active together, summed over all places."""

from __future__ import annotations

from torch import Tensor

LEAST_ROOT = 1e-12
"""Below this magnitude the signed square root is flat, so that its slope stays finite at 0."""

LEAST_NORM = 1e-6


def bilinear_pool(features: Tensor) -> Tensor:
    """Bilinear pooling of a map with itself (Lin et al., "Bilinear CNN Models", ICCV 2015, section 3).

    The mean over the H * W places of the outer product of the C values there with themselves, then the signed square
    root sign(x) sqrt(|x|) of each entry, then division by the L2 norm. Whether products are summed or averaged makes
    no difference after that division. Gradients are finite everywhere, and 0 at a map of zeros.

    Args:
        features: float (N, C, H, W) or (N, C, places).

    Returns:
        The same dtype, (N, C * C), rows of length 1 (0 for a map of zeros); entry i * C + j joins channels i and j.

    Raises:
        ValueError: another number of dimensions, or no places.
    """
    if features.ndim not in (3, 4) or features[0:1, 0:1].shape[2:].numel() == 0:
        raise ValueError(f"bilinear pooling needs (N, C, H, W) with at least one place, not {tuple(features.shape)}")
    flat = features.flatten(2)
    product = (flat @ flat.transpose(1, 2) / flat.shape[2]).flatten(1)
    root = product.sign() * product.abs().clamp_min(LEAST_ROOT).sqrt()
    normed: Tensor = root / root.norm(dim=1, keepdim=True).clamp_min(LEAST_NORM)
    return normed
