"""Oxford-IIIT Pet: 37 breeds of cats and dogs, with masks from the data set's trimaps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from libragrad_lightning.data.annotated import (
    AnnotatedDataset,
    AnnotatedImage,
    check_same_size,
    choose,
)
from libragrad_lightning.data.annotated_module import AnnotatedDataModule
from libragrad_lightning.data.batches import Bytes, Split
from libragrad_lightning.image_files import open_upright, read_rgb

_PET, _BACKGROUND, _BORDER = 1, 2, 3


@dataclass(frozen=True)
class PetFile:
    """One listed image.

    Attributes:
        image: The photograph's file.
        trimap: The trimap's file.
        label: Breed, 0 to 36.
    """

    image: Path
    trimap: Path
    label: int


class OxfordPetsDataModule(AnnotatedDataModule):
    """The Oxford-IIIT Pet data set as it is distributed: `root/images` and `root/annotations`.

    A trimap marks the pet (`mask`), the background, and a border between the two that is hard to
    attribute to either (`ignore`). Training uses `trainval.txt`, validation and test `test.txt`.

    Args:
        root: Folder with `images` and `annotations`.
        model_name: The timm model whose evaluation transform is used; training images get it too.
        image_size: Height and width of the images, pixels, or None for the model's own.
        max_images: Number of validation images, drawn by `subset_seed`, or None for all.
        subset_seed: Seed of that draw; the paper draws 1000 images with 43.
        evaluate_train: Whether validation images are taken from the training list, as the paper
            does.
        batch_size: Images in a batch.
        flip: Whether each training image is mirrored, with its mask, in half of its uses.
        num_workers: Worker processes of each data loader.

    Raises:
        ValueError: If timm knows no such model, or (in `setup`) a list is missing or damaged.
    """

    def __init__(
        self,
        root: str,
        model_name: str = "vit_base_patch16_224.augreg2_in21k_ft_in1k",
        image_size: int | None = None,
        max_images: int | None = None,
        subset_seed: int = 43,
        evaluate_train: bool = False,
        batch_size: int = 32,
        flip: bool = True,
        num_workers: int = 0,
    ) -> None:
        super().__init__(root, model_name, image_size, batch_size, flip, num_workers)
        self.save_hyperparameters()
        self.class_names: tuple[str, ...] = ()
        """Names of the breeds, in the order of the labels, from `setup` on."""
        self._max_images = max_images
        self._subset_seed = subset_seed
        self._evaluate_train = evaluate_train

    def build(self, split: Split) -> AnnotatedDataset[PetFile]:
        """List the images of a split.

        Args:
            split: `"train"`, `"val"` or `"test"`.

        Returns:
            The images.

        Raises:
            ValueError: If the list is missing or damaged.
        """
        train = split == "train" or self._evaluate_train
        files = list_pets(self._root, "trainval" if train else "test")
        self.class_names = breed_names(files)
        if split != "train":
            files = choose(files, self._max_images, self._subset_seed)
        return AnnotatedDataset(files, read_pet, self._transform)


def list_pets(root: Path, name: str) -> list[PetFile]:
    """Read one of the data set's lists.

    torchvision's `OxfordIIITPet` reads them too (a test compares), but only in a folder called
    `oxford-iiit-pet`, and it neither checks the lines and trimaps nor names a faulty file.

    Args:
        root: Folder with `images` and `annotations`.
        name: `"trainval"` or `"test"`.

    Returns:
        The listed images, in the order of the list.

    Raises:
        ValueError: If the list is missing, or a line of it does not begin with a name and a class.
    """
    listing = root / "annotations" / f"{name}.txt"
    if not listing.is_file():
        raise ValueError(
            f"There is no {listing}; set root to the folder with images and annotations."
        )
    files = []
    for line in listing.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        pet, breed, *_ = [*line.split(), ""]
        if not (breed.isdecimal() and 1 <= int(breed) <= 37):
            raise ValueError(
                f"The line {line!r} of {listing} has no class of 1 to 37 after the name; mend it."
            )
        image = root / "images" / f"{pet}.jpg"
        trimap = root / "annotations" / "trimaps" / f"{pet}.png"
        files.append(PetFile(image, trimap, int(breed) - 1))
    return files


def breed_names(files: Sequence[PetFile]) -> tuple[str, ...]:
    """Take the names of the breeds from those of the images (`yorkshire_terrier_3.jpg`).

    Args:
        files: Listed images.

    Returns:
        37 names; a breed without an image has its number for a name.
    """
    names = {file.label: file.image.stem.rpartition("_")[0].replace("_", " ") for file in files}
    return tuple(names.get(label, str(label)) for label in range(37))


def read_pet(file: PetFile) -> AnnotatedImage:
    """Read an image and its trimap.

    Args:
        file: Where they are.

    Returns:
        The image, its breed, the mask of the pet, and the border as pixels to ignore.

    Raises:
        ValueError: If a file is missing or damaged, or the sizes differ.
    """
    image = read_rgb(file.image)
    regions = _read_trimap(file.trimap)
    check_same_size(image, regions == _PET, file.trimap)
    return AnnotatedImage(image, file.label, regions == _PET, regions == _BORDER)


def _read_trimap(path: Path) -> Bytes:
    if not path.is_file():
        raise ValueError(f"The trimap {path} is missing; put it back, or change root.")
    regions = np.asarray(open_upright(path))
    if regions.ndim != 2 or not np.isin(regions, (_PET, _BACKGROUND, _BORDER)).all():
        raise ValueError(
            f"The trimap {path} holds other values than 1 (pet), 2 (background) and 3 (border); "
            "replace it with the data set's own file."
        )
    return regions
