"""Pictures as files that are small enough to be written at every audit."""

from __future__ import annotations

import io

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from libragrad_lightning.heatmaps.panel import to_pil

_FEW_COLORS = 2048
_QUALITY = 85
_ENCODED: WeakIdKeyDictionary = WeakIdKeyDictionary()


def encoded(image: Tensor) -> tuple[bytes, str]:
    """Encode a picture for a browser: PNG for charts, JPEG for photographs.

    JPEG without subsampled colors takes a third of PNG for panels of photographs, and no difference
    is seen; PNG is smaller for charts, which have few colors. The same tensor is encoded once, for
    all loggers and pages, as long as it lives and is not overwritten.

    Args:
        image: Picture [3, H, W], uint8, or floating point in [0, 1].

    Returns:
        The file, and its type, ``png`` or ``jpeg``.
    """
    version = None if image.is_inference() else image._version
    known: tuple[int | None, tuple[bytes, str]] | None = _ENCODED.get(image)
    if known is None or version is None or known[0] != version:
        known = _ENCODED[image] = version, _as_file(image)
    return known[1]


def _as_file(image: Tensor) -> tuple[bytes, str]:
    picture, file = to_pil(image), io.BytesIO()
    if picture.getcolors(_FEW_COLORS) is not None:
        picture.save(file, "png")
        return file.getvalue(), "png"
    picture.save(file, "jpeg", quality=_QUALITY, subsampling=0)
    return file.getvalue(), "jpeg"
