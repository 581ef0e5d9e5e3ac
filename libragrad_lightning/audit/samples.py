"""Samples: images with their labels and masks, in one form whatever they came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from libragrad_lightning.audit.errors import AuditError

NO_LABEL = -1
"""The class of a sample without one."""
_VOID = 255


@dataclass(frozen=True)
class Samples:
    """Samples of one batch, or of one image size in the probe set.

    Attributes:
        images: `[B, C, H, W]`, as the model receives them. None in what a user's `unpack` returns
            stands for the images that the validation step showed to the model.
        labels: Class indices `[B]` (negative for none); for several labels per image or
            quantities, `[B, C]`; or None.
        masks: Object masks `[B, H, W]`, or one of each class `[B, C, H, W]`, or None. Bool;
            numbers, where 0 is background; or floating point in [0, 1], where the object begins at
            one half.
        ignore: Pixels that are neither object nor background, bool `[B, H, W]`, or None: what is
            measured beside masks leaves them out.
        others: What the model receives beside its images, a row per image.
        texts: The texts that belong to the images, for pictures; empty if they are not known.
        other_masks: Masks `[B, H, W]` of objects that labels do not mean, in the form of `masks`,
            or None: what tells maps of one object from those of another is measured on both.
    """

    images: Tensor | None = None
    labels: Tensor | None = None
    masks: Tensor | None = None
    ignore: Tensor | None = None
    others: tuple[Tensor, ...] = ()
    texts: tuple[str, ...] = ()
    other_masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: slice | Sequence[int]) -> Samples:
        chosen = range(len(self.texts))[rows] if isinstance(rows, slice) else rows
        texts = tuple(self.texts[row] for row in chosen) if self.texts else ()
        return replace(self.each(lambda tensor: tensor[rows]), texts=texts)

    @property
    def pixels(self) -> Tensor:
        """The images, which must be there."""
        if self.images is None:
            raise AuditError(
                "LibraGradAudit has labels or masks without images; let what is passed as `unpack` "
                "return `Samples` with `images`."
            )
        return self.images

    @property
    def size(self) -> tuple[int, ...]:
        """What samples must have in common to be explained at once."""
        return (*self.pixels.shape[1:], *(n for t in self.others for n in t.shape[1:]))

    def to(self, device: torch.device, dtype: torch.dtype) -> Samples:
        """Return the samples on a device, images in a floating dtype."""
        moved = self.each(lambda tensor: tensor.to(device))
        return replace(moved, images=moved.pixels.to(dtype))

    def stored(self) -> Samples:
        """Return a copy on the CPU.

        Call it outside of inference mode, so that the copy can be differentiated.
        """
        return self.each(lambda tensor: tensor.detach().to("cpu", copy=True))

    def each(self, change: Callable[[Tensor], Tensor]) -> Samples:
        """Return the samples with every tensor changed."""
        changed: dict[str, Any] = {
            f.name: change(value)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, others=tuple(change(t) for t in self.others), **changed)


def joined(parts: Sequence[Samples]) -> Samples:
    """Return several samples of one size as one; labels and masks stay where all have them.

    Where only some have pixels to ignore, the others ignore none.
    """
    return Samples(
        torch.cat([part.pixels for part in parts]),
        _together([part.labels for part in parts]),
        _together([part.masks for part in parts]),
        _ignored(parts),
        tuple(torch.cat(rows) for rows in zip(*(part.others for part in parts), strict=True)),
        tuple(t for part in parts for t in part.texts) if all(p.texts for p in parts) else (),
        _together([part.other_masks for part in parts]),
    )


def masks_of(masks: Tensor | None, classes: Tensor) -> Tensor | None:
    """Return the masks `[B, H, W]` of a class of each image.

    Args:
        masks: `[B, H, W]`, the same for all classes, or `[B, C, H, W]`; or None.
        classes: `[B]`.
    """
    if masks is None or masks.dim() == 3:
        return masks
    rows = torch.arange(len(masks), device=masks.device)
    return masks[rows, classes.to(masks.device)]


def other_masks_of(samples: Samples, classes: Tensor) -> Tensor | None:
    """Return the masks `[B, H, W]` of what else is in images beside a class of each.

    Args:
        samples: The images. Masks of each class hold all of it, if `other_masks` does not.
        classes: `[B]`.
    """
    masks = samples.masks
    if samples.other_masks is not None or masks is None or masks.dim() == 3:
        return samples.other_masks
    rows = torch.arange(len(masks), device=masks.device)
    rest = masks.clone()
    rest[rows, classes.to(masks.device)] = False
    return rest.any(1)


def checked_samples(samples: Samples) -> Samples:
    """Return the samples as plain tensors whose sizes fit together.

    Raises:
        AuditError: If images are not finite, or sizes do not fit together.
    """
    samples = samples.each(plain)
    images, labels = samples.pixels, samples.labels
    if images.dim() != 4:
        raise AuditError(
            f"LibraGradAudit needs images [B, C, H, W] but saw {tuple(images.shape)}; pass "
            "`unpack`, a function from your batch to `Samples(images, labels, masks)`."
        )
    if images.is_floating_point() and not bool(torch.isfinite(images).all()):
        raise AuditError(
            "The validation images of LibraGradAudit hold NaN or infinite values; mend the data, "
            "or pass `unpack` to choose other images."
        )
    if labels is not None and (labels.dim() not in (1, 2) or len(labels) != len(images)):
        raise AuditError(
            f"LibraGradAudit needs one row of labels per image but saw labels of shape "
            f"{tuple(labels.shape)} for {len(images)} images that the model receives; pass "
            "`unpack` to say which labels and masks belong to them."
        )
    if samples.texts and len(samples.texts) != len(images):
        raise AuditError(
            f"LibraGradAudit saw {len(samples.texts)} texts for {len(images)} images; return one "
            "text for each from `unpack`, or none."
        )
    return replace(
        samples,
        masks=_on_pixels(samples.masks, images, "masks", by_class=True),
        ignore=_on_pixels(samples.ignore, images, "pixels to ignore"),
        other_masks=_on_pixels(samples.other_masks, images, "masks of other objects"),
    )


@dataclass
class MaskNumbers:
    """What the numbers in masks mean, which is decided for all samples together.

    255 is void where another number marks objects too, else the object. Negative numbers are void.
    """

    _void: bool = False
    _objects: bool = False

    def of_objects(self, samples: Sequence[Samples]) -> list[Samples]:
        """Return samples with bool masks of objects, and void pixels among those to ignore.

        Raises:
            AuditError: If 255 was taken for the object in samples before, and is void in these.
        """
        marks = [p.masks for p in samples if p.masks is not None and p.masks.dtype != torch.bool]
        self._void = self._void or any(map(_tells_void, marks))
        if self._void and self._objects:
            raise AuditError(
                "Masks mark objects with 255 alone in the first images that LibraGradAudit saw, "
                "and with other numbers beside it in later ones, so that 255 may be either object "
                "or void; return bool masks of objects, as from `unpack`."
            )
        self._objects |= not self._void and any(bool((m == _VOID).any()) for m in marks)
        return [_with_object_mask(part, self._void) for part in samples]


def with_object_masks(samples: Sequence[Samples]) -> list[Samples]:
    """Return samples with bool masks of objects, and void pixels among those to ignore.

    What numbers mean is decided for all of them together, as `MaskNumbers` does.
    """
    return MaskNumbers().of_objects(samples)


def _tells_void(marks: Tensor) -> bool:
    """Whether some numbers beside 255 mark objects."""
    others = (marks > 1 if marks.is_floating_point() else marks > 0) & (marks != _VOID)
    return bool(others.any() or ((marks == 1).any() and (marks == _VOID).any()))


def plain(tensor: Tensor) -> Tensor:
    """Return a tensor of a subclass, such as those of other libraries, as a plain one."""
    return tensor if type(tensor) is Tensor else tensor.as_subclass(Tensor)


def _with_object_mask(samples: Samples, void_is_255: bool) -> Samples:
    marks, ignore, others = samples.masks, samples.ignore, samples.other_masks
    if others is not None and others.dtype != torch.bool:
        soft = others.is_floating_point() and bool((others <= 1).all())
        samples = replace(samples, other_masks=others >= 0.5 if soft else others > 0)
    if marks is None:
        return samples
    ignore = None if ignore is None else ignore > 0
    if marks.dtype == torch.bool:
        return replace(samples, ignore=ignore)
    soft = marks.is_floating_point() and bool((marks <= 1).all())
    void = marks < 0
    if void_is_255:
        void = void | (marks == _VOID)
    inside = (marks >= 0.5 if soft else marks > 0) & ~void
    if bool(void.any()):
        void = void.any(1) if void.dim() == 4 else void
        ignore = void if ignore is None else ignore | void
    return replace(samples, masks=inside, ignore=ignore)


def _on_pixels(
    marked: Tensor | None, images: Tensor, what: str, by_class: bool = False
) -> Tensor | None:
    """Return marks `[B, H, W]`, or also `[B, C, H, W]`."""
    if marked is None:
        return None
    marked = marked[:, 0] if marked.dim() == 4 and marked.shape[1] == 1 else marked
    marked = marked[..., 0] if marked.dim() == 4 and marked.shape[-1] == 1 else marked
    own = marked.shape[1:2] if by_class and marked.dim() == 4 else ()
    if marked.shape != (images.shape[0], *own, *images.shape[-2:]):
        raise AuditError(
            f"LibraGradAudit saw {what} of shape {tuple(marked.shape)} for images of shape "
            f"{tuple(images.shape)} that the model receives; resize the {what} to the images, or "
            "pass `unpack`."
        )
    return marked


def _together(found: Sequence[Tensor | None]) -> Tensor | None:
    there = [tensor for tensor in found if tensor is not None]
    same = len({(t.dtype, t.shape[1:]) for t in there}) == 1
    return torch.cat(there) if same and len(there) == len(found) else None


def _ignored(parts: Sequence[Samples]) -> Tensor | None:
    if all(part.ignore is None for part in parts):
        return None
    return torch.cat([_nothing(part) if part.ignore is None else part.ignore for part in parts])


def _nothing(samples: Samples) -> Tensor:
    return torch.zeros_like(samples.pixels[:, 0], dtype=torch.bool)
