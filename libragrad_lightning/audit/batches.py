"""Reads labels, masks and images out of validation batches of any kind.

What the validation step did with a batch says more than the batch: this is for what it does not
say, such as masks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from libragrad_lightning.audit.errors import AuditError
from libragrad_lightning.audit.samples import Samples, checked_samples, plain
from libragrad_lightning.audit.trees import Way, described, leaves, tensors

IMAGE_NAMES = ("image", "images", "pixel_values", "img", "imgs", "input", "inputs", "x", "data")
LABEL_NAMES = ("label", "labels", "target", "targets", "class", "classes", "y", "gt_label")
MASK_NAMES = ("mask", "masks", "segmentation", "seg")
OTHER_MASK_NAMES = ("other_mask", "other_masks")
IGNORE_NAMES = ("ignore", "ignore_mask")
TEXT_NAMES = ("text", "texts", "caption", "captions", "sentence", "sentences", "prompt", "prompts")

_MOST_CLASSES = 32
"""A mask without a name has at most so many different values in a batch."""

_LEAST_ALIKE = 0.5
"""The least correlation of a channel before and after it is normalized."""

Leaf: TypeAlias = tuple[Way, Tensor]
Fits: TypeAlias = Callable[[Tensor], bool]

UnpackBatch: TypeAlias = Callable[[Any], Samples]
"""A user's function from a validation batch to samples."""


def unpack_batch(batch: Any) -> Samples:
    """Take images, labels, masks and pixels to ignore out of a batch.

    Mappings, dataclasses, named tuples and nested ones are read by their names (such as ``image``,
    ``label``, ``mask``, ``ignore``). What has no name is told by its place and form: the image is
    the first floating `[B, C, H, W]` tensor; after it come labels, `[B]` or `[B, C]`, and masks
    `[B, H, W]` or `[B, 1, H, W]`, of integers, bools, or floating point in [0, 1].

    Raises:
        AuditError: If there is no image, or a mask of another size.
    """
    return checked_samples(read_batch(batch, None))


def read_batch(batch: Any, images: Tensor | None) -> Samples:
    """Return what a batch holds beside the images that the model received, or with its own.

    Args:
        batch: The batch.
        images: `[B, C, H, W]` that the model received; None to look for them in the batch.

    Raises:
        AuditError: If there are no images.
    """
    found = [(way, plain(leaf)) for way, leaf in tensors(batch)]
    image = _image(found)
    if images is None:
        if image is None or image[1].dim() != 4:
            raise AuditError(
                "LibraGradAudit found no images [B, C, H, W] in the validation batch, which is "
                f"{described(batch)}; pass `unpack`, a function from your batch to "
                "`Samples(images, labels, masks)`."
            )
        images = image[1]
    rows = len(images)
    named = [(way, t) for way, t in found if image is None or t is not image[1]]
    after = named[_place(found, image) :]
    labels = [
        *_named(named, LABEL_NAMES, _are_labels),
        *_nameless(after, rows, _are_classes),
        *_nameless(after, rows, _are_labels),
    ]
    masks = [*_named(named, MASK_NAMES, _are_masks), *_nameless(after, rows, _look_like_masks)]
    others = _named(named, OTHER_MASK_NAMES, _are_masks)
    ignore = _named(named, IGNORE_NAMES, _are_masks)
    if image is not None and (masks or others or ignore) and _are_rearranged(image[1], images):
        raise AuditError(
            "The validation step rearranges its images before it shows them to the model, so that "
            "the masks of the batch lie elsewhere; pass `unpack`, a function from your batch to "
            "`Samples(None, labels, masks)` with masks that fit."
        )
    texts = _texts(batch, rows)
    return Samples(
        images,
        _first(labels),
        _first(masks),
        _first(ignore),
        texts=texts,
        other_masks=_first(others),
    )


def _image(found: Sequence[Leaf]) -> Leaf | None:
    maps = [(way, t) for way, t in found if t.dim() == 4 and _is_named(way, IMAGE_NAMES)]
    maps += [(way, t) for way, t in found if t.dim() == 4 and t.is_floating_point()]
    # The first of a tuple is the image, whatever its type.
    maps += [(way, t) for way, t in found if t.dim() in (3, 4) and _has_no_name(way)]
    return next(iter(maps), None)


def _place(found: Sequence[Leaf], image: Leaf | None) -> int:
    """Return how many of the other leaves come before the image."""
    return 0 if image is None else next(i for i, (way, _) in enumerate(found) if way == image[0])


def _named(found: Sequence[Leaf], names: Collection[str], fits: Fits) -> list[Tensor]:
    """Return the tensors of these names; of several, as those of single images, none is meant."""
    chosen = [(way, t) for way, t in found if _is_named(way, names) and fits(t)]
    by_name = Counter(way[-1] for way, _ in chosen)
    return [t for way, t in chosen if by_name[way[-1]] == 1]


def _nameless(found: Sequence[Leaf], rows: int, fits: Fits) -> list[Tensor]:
    """Return the tensors that nothing but their place names, such as those of a tuple."""
    return [t for way, t in found if _has_no_name(way) and len(t) == rows and fits(t)]


def _texts(batch: Any, rows: int) -> tuple[str, ...]:
    """Return the only texts of the images, if there are any: one for each, by name or by place."""
    lists: dict[Way, list[str]] = defaultdict(list)
    for way, leaf in leaves(batch):
        if isinstance(leaf, str) and way:
            lists[way[:-1]].append(leaf)
    found = [
        texts
        for way, texts in lists.items()
        if len(texts) == rows and (_has_no_name(way) or _is_named(way, TEXT_NAMES))
    ]
    return tuple(found[0]) if len(found) == 1 else ()


def _first(found: Sequence[Tensor]) -> Tensor | None:
    return found[0] if found else None


def _is_named(way: Way, names: Collection[str]) -> bool:
    return bool(way) and str(way[-1]).lower() in names


def _has_no_name(way: Way) -> bool:
    return not any(isinstance(key, str) for key in way)


def _are_classes(tensor: Tensor) -> bool:
    return tensor.dim() == 1 and not tensor.is_floating_point() and not tensor.is_complex()


def _are_labels(tensor: Tensor) -> bool:
    return tensor.dim() in (1, 2)


def _are_masks(tensor: Tensor) -> bool:
    return tensor.dim() in (3, 4)


def _look_like_masks(tensor: Tensor) -> bool:
    if tensor.dim() not in (3, 4) or (tensor.dim() == 4 and tensor.shape[1] != 1):
        return False
    if tensor.is_floating_point() and not bool(((tensor >= 0) & (tensor <= 255)).all()):
        return False
    # Photographs have more shades than masks have classes.
    return tensor.dtype == torch.bool or len(tensor.unique()) <= _MOST_CLASSES


def _are_rearranged(images: Tensor, received: Tensor) -> bool:
    """Whether images of a batch are others, or lie otherwise, than those that a model received.

    What normalizes images leaves them much alike.
    """
    if images.shape != received.shape or images is received:
        return False
    first, second = (t.detach().float().flatten(2) for t in (images, received.to(images.device)))
    first, second = (t - t.mean(2, keepdim=True) for t in (first, second))
    norms = first.norm(dim=2) * second.norm(dim=2)
    alike = (first * second).sum(2) / norms
    return bool((alike[norms > 0] < _LEAST_ALIKE).any())
