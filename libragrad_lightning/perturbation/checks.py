"""What is to be deleted, and of what, fits together."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def check_rows(images: Tensor, batch_size: int) -> None:
    """Check that there is something to run.

    Raises:
        ValueError: If there is no image, or no row in a forward pass.
    """
    if len(images) == 0:
        raise ValueError("`images` must hold at least one image but is empty; leave the call out.")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be a positive number of rows but is {batch_size}.")


def check_scores(scores: Mapping[str, Tensor], batch: int, grid: tuple[int, int]) -> int:
    """Return the number of patches.

    Args:
        scores: Named attributions.
        batch: How many images there are.
        grid: Rows and columns of their patches.

    Raises:
        ValueError: If scores are not those of the patches of so many images.
    """
    patches = grid[0] * grid[1]
    shapes = [tuple(score.shape) for score in scores.values()]
    if not shapes or not {*shapes} <= {(batch, patches), (batch, *grid)}:
        raise ValueError(
            f"`scores` must hold attributions [B, N] or [B, h, w] for {batch} images of "
            f"{grid[0]} x {grid[1]} patches, without those of prefix tokens, but has the shapes "
            f"{shapes}."
        )
    return patches
