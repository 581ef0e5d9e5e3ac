"""Pictures as files that are small enough to be written at every audit."""

from __future__ import annotations

import io

from torch import Tensor

from libragrad_lightning.heatmaps.panel import to_pil

_FEW_COLORS = 2048
_QUALITY = 85


def encoded(image: Tensor) -> tuple[bytes, str]:
    """Encode a picture for a browser: PNG for charts, JPEG for photographs.

    JPEG without subsampled colors takes a third of PNG for panels of photographs, and no difference
    is seen; PNG is smaller for charts, which have few colors.

    Args:
        image: Picture [3, H, W], uint8, or floating point in [0, 1].

    Returns:
        The file, and its type, ``png`` or ``jpeg``.
    """
    picture, file = to_pil(image), io.BytesIO()
    if picture.getcolors(_FEW_COLORS) is not None:
        picture.save(file, "png")
        return file.getvalue(), "png"
    picture.save(file, "jpeg", quality=_QUALITY, subsampling=0)
    return file.getvalue(), "jpeg"
