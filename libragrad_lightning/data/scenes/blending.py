"""Lay one picture over another."""

from typing import Any

import numpy as np
import numpy.typing as npt

from libragrad_lightning.data.batches import Bytes


def blend(
    below: npt.NDArray[np.float32], above: npt.NDArray[np.float32], opacity: npt.NDArray[Any]
) -> Bytes:
    """Lay one picture over another.

    Args:
        below: Pixel values 0 to 255, `[..., H, W, 3]`.
        above: Pixel values of the upper picture, the same shape.
        opacity: Share of the upper picture in each pixel, 0 to 1, `[..., H, W, 1]`.

    Returns:
        Rounded pixel values, `[..., H, W, 3]` uint8.
    """
    return np.round(opacity * above + (1 - opacity) * below).astype(np.uint8)
