"""Images, labels and masks: taken out of validation batches, and kept as a fixed probe set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

IMAGE_KEYS = ("image", "images", "pixel_values", "img", "input", "inputs", "x")
LABEL_KEYS = ("label", "labels", "target", "targets", "class", "y")
MASK_KEYS = ("mask", "masks", "segmentation")
IGNORE_KEYS = ("ignore", "ignore_mask")


@dataclass(frozen=True)
class Samples:
    """Samples of one batch or of the whole probe set.

    Attributes:
        images: Float `[B, C, H, W]`, normalised as the model expects them.
        labels: Class indices, int64 `[B]`, or None.
        masks: Object masks, bool `[B, H, W]`, or None.
        ignore: Pixels that are neither object nor background, bool `[B, H, W]`, or None: what is
            measured beside masks leaves them out.
    """

    images: Tensor
    labels: Tensor | None = None
    masks: Tensor | None = None
    ignore: Tensor | None = None

    def __len__(self) -> int:
        return self.images.shape[0]

    def __getitem__(self, rows: slice) -> Samples:
        return self._each(lambda tensor: tensor[rows])

    def to(self, device: torch.device, dtype: torch.dtype) -> Samples:
        """Return the samples on a device, images in a floating dtype."""
        moved = self._each(lambda tensor: tensor.to(device))
        return replace(moved, images=moved.images.to(dtype))

    def stored(self) -> Samples:
        """Return a copy on the CPU.

        Call it outside of inference mode, so that the copy can be differentiated.
        """
        return self._each(lambda tensor: tensor.detach().to("cpu", copy=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Samples:
        return Samples(
            change(self.images),
            None if self.labels is None else change(self.labels),
            None if self.masks is None else change(self.masks),
            None if self.ignore is None else change(self.ignore),
        )


def joined(parts: Sequence[Samples]) -> Samples | None:
    """Return several samples as one; labels and masks stay where all have them.

    Where only some have pixels to ignore, the others ignore none.
    """
    if not parts:
        return None
    labels = [part.labels for part in parts if part.labels is not None]
    masks = [part.masks for part in parts if part.masks is not None]
    return Samples(
        torch.cat([part.images for part in parts]),
        torch.cat(labels) if len(labels) == len(parts) else None,
        torch.cat(masks) if len(masks) == len(parts) else None,
        _joined_ignore(parts),
    )


def _joined_ignore(parts: Sequence[Samples]) -> Tensor | None:
    if all(part.ignore is None for part in parts):
        return None
    return torch.cat([_no_pixel(part) if part.ignore is None else part.ignore for part in parts])


def _no_pixel(samples: Samples) -> Tensor:
    return torch.zeros_like(samples.images[:, 0], dtype=torch.bool)


UnpackBatch: TypeAlias = Callable[[Any], Samples]
"""A user's function from a validation batch to samples."""


def unpack_batch(batch: Any) -> Samples:
    """Take images, labels, masks and pixels to ignore out of a batch.

    A mapping is read by its keys (such as ``image``, ``label``, ``mask``, ``ignore``). In a
    sequence, the image is the first floating `[B, C, H, W]` tensor, the label the first integer
    `[B]` tensor, and the mask the first bool or integer `[B, H, W]` or `[B, 1, H, W]` tensor after
    the image; what else there is has no name, so no pixel of a sequence is ignored.

    Raises:
        MisconfigurationException: If there is no image, or a mask of another size.
    """
    if isinstance(batch, Tensor):
        found = Samples(batch)
    elif isinstance(batch, Mapping):
        found = _from_mapping(batch)
    elif isinstance(batch, Sequence) and not isinstance(batch, str):
        found = _from_sequence([item for item in batch if isinstance(item, Tensor)])
    else:
        raise _no_images(batch)
    if not isinstance(found.images, Tensor) or found.images.dim() != 4:
        raise _no_images(batch)
    return checked_samples(found)


def unpacked(batch: Any, unpack: UnpackBatch) -> Samples:
    """Return the samples of a batch as a user's function takes them out.

    Raises:
        MisconfigurationException: If the function returns something else, or they do not fit.
    """
    samples = unpack(batch)
    if unpack is unpack_batch:
        return samples
    if not isinstance(samples, Samples):
        raise MisconfigurationException(
            f"`unpack` must return `Samples(images, labels, masks)` but returned "
            f"{type(samples).__name__}."
        )
    return checked_samples(samples)


def checked_samples(samples: Samples) -> Samples:
    """Return the samples with labels, masks and ignored pixels in canonical form.

    Raises:
        MisconfigurationException: If images are not finite, or sizes do not fit together.
    """
    images, labels = samples.images, samples.labels
    if not bool(torch.isfinite(images).all()):
        raise MisconfigurationException(
            "The validation images of LibraGradAudit hold NaN or infinite values; mend the data, "
            "or pass `unpack` to choose other images."
        )
    if labels is not None and labels.shape != images.shape[:1]:
        raise MisconfigurationException(
            f"LibraGradAudit needs one class index per image but saw labels of shape "
            f"{tuple(labels.shape)} for {images.shape[0]} images; pass "
            "`unpack` to say where they are."
        )
    return Samples(
        images,
        None if labels is None else labels.long(),
        _pixels(samples.masks, images, "masks"),
        _pixels(samples.ignore, images, "pixels to ignore"),
    )


def _pixels(marked: Tensor | None, images: Tensor, what: str) -> Tensor | None:
    """Return which pixels are marked, bool `[B, H, W]`."""
    if marked is None:
        return None
    marked = marked[:, 0] if marked.dim() == 4 and marked.shape[1] == 1 else marked
    if marked.shape != (images.shape[0], *images.shape[-2:]):
        raise MisconfigurationException(
            f"LibraGradAudit saw {what} of shape {tuple(marked.shape)} for images of shape "
            f"{tuple(images.shape)}; resize the {what} to the images, or pass `unpack`."
        )
    return marked > 0


def _from_mapping(batch: Mapping[Any, Any]) -> Samples:
    def first(keys: Sequence[str]) -> Any:
        return next((batch[k] for k in keys if isinstance(batch.get(k), Tensor)), None)

    labels = first(LABEL_KEYS)
    return Samples(
        first(IMAGE_KEYS),
        labels if _is_labels(labels) else None,
        first(MASK_KEYS),
        first(IGNORE_KEYS),
    )


def _from_sequence(tensors: Sequence[Tensor]) -> Samples:
    images = next((t for t in tensors if t.dim() == 4 and t.is_floating_point()), None)
    rest = [t for t in tensors if t is not images]
    labels = next((t for t in rest if _is_labels(t)), None)
    masks = next((t for t in rest if t.dim() in (3, 4) and not t.is_floating_point()), None)
    return Samples(images, labels, masks)  # type: ignore[arg-type]


def _is_labels(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.dim() == 1 and not tensor.is_floating_point()


def _no_images(batch: Any) -> MisconfigurationException:
    if isinstance(batch, Mapping):
        seen = f"a mapping with the keys {sorted(map(str, batch))}"
    elif isinstance(batch, Sequence) and not isinstance(batch, str):
        seen = f"a {type(batch).__name__} of " + ", ".join(_described(item) for item in batch)
    else:
        seen = _described(batch)
    return MisconfigurationException(
        f"LibraGradAudit found no images [B, C, H, W] in the validation batch, which is {seen}; "
        "pass `unpack`, a function from your batch to `Samples(images, labels, masks)`."
    )


def _described(item: Any) -> str:
    if isinstance(item, Tensor):
        return f"{str(item.dtype).removeprefix('torch.')} {tuple(item.shape)}"
    return type(item).__name__
