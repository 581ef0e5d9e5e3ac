"""Images with labels that a model knows: in one folder per class, or annotated as COCO's are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from libragrad_lightning.commands.models import NamedModel
from libragrad_lightning.data.annotated import AnnotatedDataset
from libragrad_lightning.data.annotated_module import AnnotatedDataModule
from libragrad_lightning.data.batches import Split
from libragrad_lightning.data.coco_annotations import read_annotations
from libragrad_lightning.data.coco_samples import (
    CocoSample,
    image_path,
    largest_class,
    read_coco_sample,
    split_gray_bits,
)
from libragrad_lightning.data.image_folder import (
    LabelledFile,
    class_folders,
    list_images,
    read_labelled_file,
    sample_images,
)
from libragrad_lightning.data.imagenet import imagenet_indices, imagenet_names
from libragrad_lightning.image_files import measure_gray_bits


class ImagesOfClasses(AnnotatedDataModule):
    """Images in one folder per class, for validation alone.

    Args:
        images: The folder of the classes' folders.
        masks: A folder of the same form with masks, or None.
        model_name: The timm model whose evaluation transform is used.
        named: The model, which has to have as many classes.
        batch_size: Images in a batch.

    Raises:
        ValueError: If there are no such folders, or the model has other classes.
    """

    def __init__(
        self,
        images: str,
        masks: str | None,
        model_name: str,
        named: NamedModel,
        batch_size: int,
    ) -> None:
        super().__init__(images, model_name, named.side, batch_size, flip=False, num_workers=0)
        self._masks = None if masks is None else Path(masks)
        try:
            folders = class_folders(self._root)
        except ValueError:
            raise ValueError(f"{images} holds no folders of classes; change images.") from None
        synsets = imagenet_indices() if named.class_names == imagenet_names() else {}
        self._labels = labels_of(folders, named, synsets, f"{images} holds folders", "images")
        self.class_names = named_classes(self._labels, named)

    def build(self, split: Split) -> AnnotatedDataset[LabelledFile]:
        """List the images.

        Raises:
            ValueError: If there is none, or training images are asked for.
        """
        self._refuse_training(split)
        files: Any = list_images(self._root, self._labels, self._masks)
        bits = measure_gray_bits(sample_images(self._root))
        return AnnotatedDataset(files, partial(read_labelled_file, gray_bits=bits), self._transform)


class ImagesOfCategories(AnnotatedDataModule):
    """Images with annotations in COCO's form, for validation alone.

    The class of an image is the one that covers most of it, its mask all annotations of that class.

    Args:
        images: The folder of the images.
        annotations: The file of their annotations.
        model_name: The timm model whose evaluation transform is used.
        named: The model, whose classes are the categories in the order of their numbers; of a model
            whose classes have names, those categories are taken that are called like one of them.
        batch_size: Images in a batch.

    Raises:
        ValueError: If the annotations are faulty, or the model has other classes.
    """

    def __init__(
        self, images: str, annotations: str, model_name: str, named: NamedModel, batch_size: int
    ) -> None:
        super().__init__(images, model_name, named.side, batch_size, flip=False, num_workers=0)
        self._annotations = read_annotations(Path(annotations))
        names = self._annotations.categories
        by_name = {name.lower(): number for number, name in enumerate(named.class_names)}
        known = {name: by_name[name.lower()] for name in names if name.lower() in by_name}
        self._labels = known or labels_of(names, named, {}, f"{annotations} has categories", "coco")
        self.class_names = named_classes(self._labels, named)

    def build(self, split: Split) -> AnnotatedDataset[CocoSample]:
        """Read which class covers most of each image.

        Raises:
            ValueError: If an image is missing, none shows a class of the model, or training images
                are asked for.
        """
        self._refuse_training(split)
        annotations, labels = self._annotations, self._labels
        samples = [
            CocoSample(image_path(self._root, image, "images"), image, region)
            for image in annotations.images
            if (region := largest_class(annotations, image, labels)) is not None
        ]
        if not samples:
            raise ValueError(
                f"No image of {annotations.path} shows one of {', '.join(labels)}; change coco."
            )
        read = partial(read_coco_sample, gray_bits=split_gray_bits([self._root]))
        return AnnotatedDataset(samples, read, self._transform)


def labels_of(
    names: Sequence[str],
    named: NamedModel,
    indices: Mapping[str, int],
    found: str,
    argument: str,
) -> dict[str, int]:
    """Return the class index by the name of a class.

    Args:
        names: Of the classes, in their order.
        named: The model.
        indices: Class index by name where that is known; otherwise the order tells.
        found: How the error begins that says how many classes there are.
        argument: What the user can change.

    Raises:
        ValueError: If the model has another number of classes.
    """
    if indices.keys() >= set(names):
        return {name: indices[name] for name in names}
    classes = int(named.model.num_classes)  # type: ignore[arg-type]
    if len(names) != classes:
        raise ValueError(
            f"{found} of {len(names)} classes, but the model has {classes}; change {argument}, or "
            "pass a checkpoint of a model of these classes."
        )
    return {name: number for number, name in enumerate(names)}


def named_classes(labels: Mapping[str, int], named: NamedModel) -> tuple[str, ...]:
    """Return the names of the model's classes: its own, or those of the labels."""
    return named.class_names or tuple(sorted(labels, key=labels.__getitem__))
