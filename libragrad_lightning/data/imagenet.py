"""The thousand classes of ImageNet-1k, in the order of every model's outputs."""

from __future__ import annotations

from functools import cache

from timm.data.imagenet_info import ImageNetInfo


@cache
def imagenet_names() -> tuple[str, ...]:
    """Return a short English name of each class, such as "zebra".

    Returns:
        1000 names.
    """
    info = ImageNetInfo("imagenet-1k")
    return tuple(info.index_to_description(index).partition(",")[0] for index in range(1000))


@cache
def imagenet_indices() -> dict[str, int]:
    """Return the class index of each WordNet synset.

    Returns:
        Index 0 to 999 by synset, such as 340 for `n02391049` (zebra).
    """
    return {synset: index for index, synset in enumerate(ImageNetInfo("imagenet-1k").label_names())}


def imagenet_index(synset: str, origin: str) -> int:
    """Return the class index of a synset.

    Args:
        synset: Such as `n02391049`.
        origin: Where the name was seen, for the error.

    Returns:
        0 to 999.

    Raises:
        ValueError: If ImageNet-1k has no such class.
    """
    index = imagenet_indices().get(synset)
    if index is None:
        raise ValueError(
            f"{origin} is named {synset!r}, which is no synset of ImageNet-1k's 1000 classes (such "
            "as n02391049); rename it, or change root."
        )
    return index
