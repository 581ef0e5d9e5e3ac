"""Read cut-outs and backgrounds from folders, and deal them out to the splits."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from libragrad_lightning.data.batches import Split
from libragrad_lightning.image_files import open_upright, to_rgb, upright

_PICTURES = frozenset({".png", ".webp", ".tif", ".tiff", ".jpg", ".jpeg"})
# Alpha from which a pixel counts as the object's: it then shows more object than background.
OPAQUE = 128

T = TypeVar("T")


@dataclass(frozen=True)
class Shares:
    """How much of every class, and of the backgrounds, each held-out split gets.

    Attributes:
        val: Share of the validation split, above 0; at least one object is held out.
        test: Share of the test split; 0 means that there is none.
        seed: Decides which objects and backgrounds are held out.
    """

    val: float
    test: float
    seed: int


def list_cutouts(folder: Path, classes: Sequence[str] | None) -> dict[str, list[Path]]:
    """List the cut-outs of every class.

    Args:
        folder: Holds one folder for each class.
        classes: Names of the class folders to use, or None for all.

    Returns:
        Files in the order of their names, by class in the order of the classes' names.

    Raises:
        ValueError: If the folder, a class or its pictures are missing.
    """
    _check_folder(folder, "objects")
    found = {path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."}
    missing = sorted(set(classes or ()) - found)
    if missing or not found:
        raise ValueError(
            f"The folder {folder} needs one folder of cut-outs for each class, but it has no "
            f"{', '.join(missing) or 'folder at all'}; change objects or classes."
        )
    return {name: list_pictures(folder / name, "objects") for name in sorted(classes or found)}


def list_pictures(folder: Path, argument: str) -> list[Path]:
    """List the pictures in a folder and below, in the order of their paths.

    Args:
        folder: Where to look.
        argument: Name of the argument that the folder comes from, for the error.

    Returns:
        At least one file.

    Raises:
        ValueError: If there is no such folder, or no picture in it.
    """
    _check_folder(folder, argument)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PICTURES)
    if not files:
        raise ValueError(f"The folder {folder} holds no picture; change {argument}.")
    return files


def deal(items: Sequence[T], name: str, shares: Shares) -> dict[Split, list[T]]:
    """Deal items out to the splits, no item to two of them.

    Args:
        items: What to deal out.
        name: What the items are; the draw depends on it and on the seed, not on other classes.
        shares: How much each split gets.

    Returns:
        The items of each split, at least one for training and for each split with a share.

    Raises:
        ValueError: If there are too few items.
    """
    held_out = {"val": _count(shares.val, len(items)), "test": _count(shares.test, len(items))}
    train = len(items) - sum(held_out.values())
    if train < 1:
        raise ValueError(
            f"{name!r} has {len(items)} pictures, of which {len(items) - train} would be held out "
            "and none left for training; add pictures, or lower val_share or test_share."
        )
    rng = np.random.default_rng([shares.seed, zlib.crc32(name.encode())])
    order = [items[index] for index in rng.permutation(len(items))]
    val = train + held_out["val"]
    return {"train": order[:train], "val": order[train:val], "test": order[val:]}


def read_cutout(path: Path, longest: int) -> Image.Image:
    """Read a cut-out and trim it to its opaque pixels.

    Args:
        path: A picture with an alpha channel.
        longest: Largest height and width that will be needed, pixels.

    Returns:
        RGBA.

    Raises:
        ValueError: If the picture has no alpha channel, or is all opaque or all transparent.
    """
    stored = open_upright(path)
    if not stored.has_transparency_data:
        raise ValueError(_no_cutout(path, "has no alpha channel"))
    picture = stored.convert("RGBA")
    opaque = picture.getchannel("A").point([255 * (value >= OPAQUE) for value in range(256)])
    box = opaque.getbbox()
    if box is None:
        raise ValueError(_no_cutout(path, "is transparent everywhere"))
    if opaque.getextrema() == (255, 255):
        raise ValueError(_no_cutout(path, "is opaque everywhere"))
    trimmed = picture.crop(box)
    trimmed.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return trimmed


def read_background(path: Path, shortest: int) -> Image.Image:
    """Read a background, no larger than needed.

    Args:
        path: A picture.
        shortest: Height or width, whichever is smaller, that is enough, pixels.

    Returns:
        RGB.
    """
    with Image.open(path) as file:
        file.draft("RGB", (shortest, shortest))
        picture = to_rgb(upright(file), path)
    factor = shortest / min(picture.size)
    if factor >= 1:
        return picture
    width, height = (max(shortest, round(side * factor)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def deal_classes(
    files: Mapping[str, Sequence[Path]], shares: Shares
) -> dict[Split, list[list[Path]]]:
    """Deal out the cut-outs of every class.

    Args:
        files: Cut-outs by class.
        shares: How much each split gets.

    Returns:
        For each split, the cut-outs of every class in the order of the classes.
    """
    dealt = [deal(cutouts, name, shares) for name, cutouts in files.items()]
    return {split: [one[split] for one in dealt] for split in ("train", "val", "test")}


def _count(share: float, total: int) -> int:
    return max(1, round(share * total)) if share > 0 else 0


def _no_cutout(path: Path, reason: str) -> str:
    return f"{path} {reason}, so it is no cut-out; remove it, or save it with its ground erased."


def _check_folder(folder: Path, argument: str) -> None:
    if not folder.is_dir():
        raise ValueError(
            f"There is no folder {folder}; change {argument}, or, for the photographs that Debian "
            f"packages, run `PYTHONPATH=examples python -m cutout_scenes.photographs`."
        )
