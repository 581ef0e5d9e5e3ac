"""What pixels are likely to be, by those around them."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch
from scipy.sparse.linalg import splu
from torch import Tensor


def linear_imputation(images: Tensor, visible: Tensor) -> Tensor:
    """Return images whose hidden pixels are weighted means of their neighbors, seen or hidden.

    The direct neighbors of a pixel count 1/6 each and the diagonal ones 1/12, those outside of the
    image left out: one sparse linear system an image, solved on the CPU in float64 (0.14 seconds
    for half of the pixels of 224 x 224). A hole then has no border of its own, whose form
    could tell what was hidden.

    Args:
        images: `[B, C, H, W]`, floating point.
        visible: Which pixels are seen, `[B, H, W]`, boolean. An image of which none is gets its
            mean color.

    Returns:
        `[B, C, H, W]`, of the type of the images and on their device; seen pixels are unchanged.

    Source:
        Rong et al., A Consistent and Efficient Evaluation Strategy for Attribution Methods (ICML
        2022), noisy linear imputation, before the noise.
    """
    weights = _neighbor_weights(images.shape[-2], images.shape[-1])
    wide = images.detach().cpu().double().flatten(2).mT.numpy()
    seen = visible.cpu().flatten(1).numpy()
    filled = np.stack([_imputed(*pair, weights) for pair in zip(wide, seen, strict=True)])
    imputed = torch.from_numpy(filled).mT.unflatten(2, images.shape[-2:])
    return torch.where(visible[:, None], images, imputed.to(images))


def _imputed(pixels: np.ndarray, seen: np.ndarray, weights: scipy.sparse.csr_matrix) -> np.ndarray:
    """Return the pixels `[P, C]` of one image with those that are not seen imputed."""
    if seen.all():
        return pixels
    if not seen.any():
        return np.broadcast_to(pixels.mean(0), pixels.shape)
    of_hidden = weights[~seen]
    degrees = scipy.sparse.diags(np.asarray(of_hidden.sum(axis=1)).ravel())
    system = (degrees - of_hidden[:, ~seen]).tocsc()
    # Symmetric and diagonally dominant: no pivot is needed.
    solver = splu(
        system,
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    filled = pixels.copy()
    filled[~seen] = solver.solve(of_hidden[:, seen] @ pixels[seen])
    return filled


def _neighbor_weights(height: int, width: int) -> scipy.sparse.csr_matrix:
    """Return how much every pixel counts for every other one, `[P, P]`."""
    rows, columns = (
        2 * scipy.sparse.eye(n) + scipy.sparse.eye(n, k=1) + scipy.sparse.eye(n, k=-1)
        for n in (height, width)
    )
    weights = scipy.sparse.kron(rows, columns, format="csr") / 12
    return (weights - scipy.sparse.diags(weights.diagonal())).tocsr()
