"""ImageNet-S: images of ImageNet with masks of their classes."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from libragrad_lightning.data.annotated import (
    AnnotatedDataset,
    AnnotatedImage,
    check_same_size,
    choose,
)
from libragrad_lightning.data.annotated_module import AnnotatedDataModule
from libragrad_lightning.data.batches import Split
from libragrad_lightning.data.imagenet import imagenet_index, imagenet_names
from libragrad_lightning.image_files import read_rgb

OTHER, IGNORE = 0, 1000
"""Values of a mask that are no class: outside of the annotated classes, and to be ignored."""


@dataclass(frozen=True)
class SegmentedFile:
    """An image file, its mask's file, and the class in it to be explained.

    Attributes:
        image: The photograph.
        mask: The class of each pixel, red + 256 · green.
        value: Value of the pixels of the class to be explained.
        label: That class's index in ImageNet-1k.
    """

    image: Path
    mask: Path
    value: int
    label: int


class ImageNetSDataModule(AnnotatedDataModule):
    """ImageNet-S (50, 300 or 919 classes), sampled as the paper's segmentation test does.

    `root/validation/<synset>/<name>.JPEG` are the images and
    `root/validation-segmentation/<synset>/<name>.png` the masks; a pixel's class is
    red + 256 · green, and counts the sorted synsets from 1. One class of each image is explained:
    the one that covers most of the model's crop. Images in which it covers less than `min_share`
    are left out, after the draw of `max_images`. `label` is ImageNet's class index, `mask` the
    pixels of that class, `ignore` those marked as such. Validation and test use the same images;
    there is no training.

    Args:
        root: The folder of ImageNet-S.
        model_name: The timm model whose evaluation transform is used.
        image_size: Height and width of the images, pixels, or None for the model's own.
        max_images: Number of images drawn, before any is left out, or None for all.
        subset_seed: Seed of that draw; the paper draws 5000 images with 42.
        min_share: Smallest share of the crop that the class must cover, 0 to 1; the paper's is 5 %.
        mark_ignored: Whether batches have `ignore`; without it, those pixels count as background,
            as in the paper.
        split_folder: Name of the folder with the images.
        batch_size: Images in a batch.
        num_workers: Worker processes of each data loader.

    Raises:
        ValueError: If timm knows no such model, or (in `setup`) a folder does not hold what it
            should.
    """

    def __init__(
        self,
        root: str,
        model_name: str = "vit_base_patch16_224.augreg2_in21k_ft_in1k",
        image_size: int | None = None,
        max_images: int | None = 5000,
        subset_seed: int = 42,
        min_share: float = 0.05,
        mark_ignored: bool = True,
        split_folder: str = "validation",
        batch_size: int = 32,
        num_workers: int = 0,
    ) -> None:
        super().__init__(root, model_name, image_size, batch_size, False, num_workers)
        self.save_hyperparameters()
        self.class_names = imagenet_names()
        """Names of the classes, in the order of the labels."""
        self._max_images = max_images
        self._subset_seed = subset_seed
        self._min_share = min_share
        self._mark_ignored = mark_ignored
        self._split_folder = split_folder

    def build(self, split: Split) -> AnnotatedDataset[SegmentedFile]:
        """Choose the images and their classes; every mask that is drawn has to be read for that.

        Args:
            split: `"val"` or `"test"`, which are the same.

        Returns:
            The images.

        Raises:
            ValueError: For `"train"`, or if the folder does not hold what it should.
        """
        self._refuse_training(split)
        masks_folder = self._root / f"{self._split_folder}-segmentation"
        masks = sorted(masks_folder.glob("*/*.png"))
        if not masks:
            raise ValueError(f"There are no masks in {masks_folder}; set root to ImageNet-S.")
        synsets = sorted(path.name for path in masks_folder.iterdir() if path.is_dir())
        chosen = choose(masks, self._max_images, self._subset_seed)
        files = [self._segmented(path, synsets) for path in chosen]
        return AnnotatedDataset(
            [file for file in files if file is not None],
            partial(read_segmented, mark_ignored=self._mark_ignored),
            self._transform,
        )

    def _segmented(self, path: Path, synsets: list[str]) -> SegmentedFile | None:
        values = read_class_map(path)
        cropped = self._transform.masks(torch.from_numpy(values)[None]).numpy()
        value, share = largest_class(cropped)
        if value is None or share < self._min_share:
            return None
        if value > len(synsets):
            raise ValueError(
                f"The mask {path} holds class {value}, but there are {len(synsets)} class folders; "
                "set root to a complete ImageNet-S."
            )
        synset = synsets[value - 1]
        image = self._root / self._split_folder / path.parent.name / f"{path.stem}.JPEG"
        label = imagenet_index(synset, f"Class folder {value} of ImageNet-S")
        return SegmentedFile(image, path, value, label)


def read_class_map(path: Path) -> npt.NDArray[np.int32]:
    """Read a mask of ImageNet-S.

    Args:
        path: A PNG file.

    Returns:
        Class of each pixel, `[H, W]`: 0 is other, 1000 is to be ignored.

    Raises:
        ValueError: If the file is missing or is no image.
    """
    red, green = np.moveaxis(np.asarray(read_rgb(path), np.int32), -1, 0)[:2]
    return red + 256 * green


def largest_class(values: npt.NDArray[np.int32]) -> tuple[int | None, float]:
    """Find the class that covers most of a mask.

    Args:
        values: Class of each pixel, any shape.

    Returns:
        The class, or None if there is none, and the share of all pixels that it covers.
    """
    areas = np.bincount(values.ravel(), minlength=IGNORE + 1)
    areas[[OTHER, IGNORE]] = 0
    value = int(areas.argmax())
    return (value if areas[value] else None), float(areas[value] / values.size)


def read_segmented(file: SegmentedFile, mark_ignored: bool) -> AnnotatedImage:
    """Read an image and the mask of the class to be explained.

    Args:
        file: Where they are.
        mark_ignored: Whether to tell which pixels are to be ignored.

    Returns:
        The image, the label, the class's pixels, and the pixels to ignore if asked for.

    Raises:
        ValueError: If a file is missing or damaged, or the sizes differ.
    """
    image = read_rgb(file.image)
    values = read_class_map(file.mask)
    mask = values == file.value
    check_same_size(image, mask, file.mask)
    return AnnotatedImage(image, file.label, mask, values == IGNORE if mark_ignored else None)
