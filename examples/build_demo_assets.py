"""Build `garments.npz` and `background_*.png` from their public sources.

The two sources are the four gzipped idx files of Fashion-MNIST and the `skimage/data` folder of an
unpacked scikit-image wheel:

    python examples/build_demo_assets.py IDX_FOLDER SKIMAGE_DATA_FOLDER

The result does not depend on any random number: running the script again gives equal arrays.
"""

from __future__ import annotations

import argparse
import gzip
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

ASSETS = Path(__file__).parents[1] / "libragrad_lightning" / "demo" / "assets"
GRAY_LEVELS = 32
BACKGROUND_SIZE = 192

Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Photograph:
    """A photograph of the scikit-image collection and the square of it that is shipped.

    Attributes:
        source: File name in `skimage/data`.
        split: `"train"` or `"held_out"`; no photograph serves both.
        box: Left, upper, right, lower edge of the square, in source pixels.
        dark: Color given to black when a gray photograph is tinted, RGB.
        light: Color given to white when a gray photograph is tinted, RGB.
    """

    source: str
    split: str
    box: tuple[int, int, int, int]
    dark: tuple[int, int, int] = (0, 0, 0)
    light: tuple[int, int, int] = (255, 255, 255)

    @property
    def target(self) -> str:
        """Name of the shipped file."""
        return f"background_{self.split}_{Path(self.source).stem}.png"


PHOTOGRAPHS = (
    Photograph("brick.png", "train", (64, 64, 448, 448), (30, 10, 0), (255, 205, 180)),
    Photograph("camera.png", "train", (272, 190, 512, 430), (0, 8, 20), (225, 240, 255)),
    Photograph("chelsea.png", "train", (90, 0, 390, 300)),
    Photograph("coffee.png", "train", (100, 8, 484, 392)),
    Photograph("grass.png", "train", (64, 64, 448, 448), (15, 22, 5), (215, 228, 150)),
    Photograph("gravel.png", "held_out", (64, 64, 448, 448), (10, 8, 5), (250, 238, 220)),
    Photograph("rocket.jpg", "held_out", (140, 43, 524, 427)),
    Photograph("text.png", "held_out", (128, 0, 300, 172), (20, 15, 10), (255, 244, 222)),
)


def read_idx(path: Path) -> Array:
    """Read a gzipped idx file of unsigned bytes.

    Args:
        path: Images (`[N, H, W]`) or labels (`[N]`).

    Returns:
        The array, of the shape that the file's header gives.
    """
    content = gzip.decompress(path.read_bytes())
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", count=dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def balanced_indices(labels: Array, first: int, count: int) -> npt.NDArray[np.int64]:
    """Pick `count` images of every class, skipping the `first` ones, in an interleaved order.

    Args:
        labels: Class of each image, `[N]`.
        first: Images of every class to skip.
        count: Images of every class to take.

    Returns:
        Indices `[classes * count]`, classes taking turns, so that any prefix is nearly balanced.
    """
    classes = np.unique(labels)
    return np.stack(
        [np.flatnonzero(labels == c)[first : first + count] for c in classes], 1
    ).ravel()


def quantize(images: Array) -> Array:
    """Round 256 gray levels to `GRAY_LEVELS` ones.

    Args:
        images: Gray values 0 to 255, any shape.

    Returns:
        Levels 0 to 31. Values below 5, sensor noise beside the garment, become 0.
    """
    return np.round(images * ((GRAY_LEVELS - 1) / 255)).astype(np.uint8)


def save_compressed(path: Path, arrays: dict[str, Array]) -> None:
    """Write arrays as an `.npz` file with LZMA, which is a sixth smaller than NumPy's deflate.

    Args:
        path: File to write.
        arrays: Arrays by name.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            # A fixed date keeps the file equal from build to build.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_LZMA)


def build_garments(idx_folder: Path, target: Path, per_class: dict[str, int]) -> None:
    """Write the balanced subset of Fashion-MNIST.

    Args:
        idx_folder: Folder with `train-*` and `t10k-*` files.
        target: File to write.
        per_class: Images of each class for `train` (from `train-*`), `val` and `test` (from
            `t10k-*`, disjoint).
    """
    arrays: dict[str, Array] = {}
    first = {"train": 0, "val": 0, "test": per_class["val"]}
    for split, count in per_class.items():
        prefix = "train" if split == "train" else "t10k"
        images = read_idx(idx_folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(idx_folder / f"{prefix}-labels-idx1-ubyte.gz")
        chosen = balanced_indices(labels, first[split], count)
        arrays[f"{split}_images"] = quantize(images[chosen])
        arrays[f"{split}_labels"] = labels[chosen]
    save_compressed(target, arrays)


def build_background(photograph: Photograph, source_folder: Path, target_folder: Path) -> None:
    """Crop, shrink and, where it is gray, tint one photograph.

    Args:
        photograph: What to take.
        source_folder: The folder `skimage/data`.
        target_folder: The assets folder.
    """
    image = Image.open(source_folder / photograph.source).crop(photograph.box)
    image = image.resize((BACKGROUND_SIZE, BACKGROUND_SIZE), Image.Resampling.LANCZOS)
    if image.mode == "L":
        image = ImageOps.colorize(image, photograph.dark, photograph.light)
    image.save(target_folder / photograph.target, optimize=True)


def main() -> None:
    """Build every asset from the folders named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("idx_folder", type=Path, help="Fashion-MNIST's gzipped idx files")
    parser.add_argument("skimage_data_folder", type=Path, help="skimage/data of the wheel")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder to write to")
    arguments = parser.parse_args()
    build_garments(
        arguments.idx_folder,
        arguments.out / "garments.npz",
        {"train": 1600, "val": 200, "test": 200},
    )
    for photograph in PHOTOGRAPHS:
        build_background(photograph, arguments.skimage_data_folder, arguments.out)


if __name__ == "__main__":
    main()
