"""MURA: radiographs of the upper limb, normal or abnormal, for a head with one logit."""

import re
from dataclasses import dataclass
from pathlib import Path

from libragrad_lightning.data.annotated import AnnotatedDataset, AnnotatedImage, choose
from libragrad_lightning.data.annotated_module import AnnotatedDataModule
from libragrad_lightning.data.batches import Split
from libragrad_lightning.image_files import read_rgb

_STUDY = re.compile(r"/study\d+_(positive|negative)/")


@dataclass(frozen=True)
class Radiograph:
    """One image of a study.

    Attributes:
        path: The file.
        label: 1 if the study is abnormal ("positive"), else 0.
    """

    path: Path
    label: int


class MuraDataModule(AnnotatedDataModule):
    """MURA as it is distributed (`MURA-v1.1`), without masks.

    `train_image_paths.csv` and `valid_image_paths.csv` in `root` list the images, one path a line,
    beginning with the name of the root folder; the name of the study's folder says whether it is
    abnormal. Labels are 0 and 1, for a model with `num_classes: 1`. Testing uses the validation
    images: the test images of MURA are not public.

    Args:
        root: The folder `MURA-v1.1`.
        model_name: The timm model whose evaluation transform is used; training images get it too.
        image_size: Height and width of the images, pixels, or None for the model's own.
        max_images: Number of validation images, drawn by `subset_seed`, or None for all.
        subset_seed: Seed of that draw; the paper draws 1000 images with 43.
        evaluate_train: Whether validation images are taken from the training list, as the paper
            does.
        batch_size: Images in a batch.
        flip: Whether each training image is mirrored in half of its uses.
        num_workers: Worker processes of each data loader.

    Raises:
        ValueError: If timm knows no such model, or (in `setup`) a list or an image is missing.
    """

    class_names = ("normal", "abnormal")

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
        self._max_images = max_images
        self._subset_seed = subset_seed
        self._evaluate_train = evaluate_train

    def build(self, split: Split) -> AnnotatedDataset[Radiograph]:
        """List the images of a split.

        Args:
            split: `"train"`, `"val"` or `"test"`.

        Returns:
            The images.

        Raises:
            ValueError: If the list is missing, or a line of it is none of MURA's.
        """
        train = split == "train" or self._evaluate_train
        listed = list_radiographs(self._root, "train" if train else "valid")
        if split != "train":
            listed = choose(listed, self._max_images, self._subset_seed)
        return AnnotatedDataset(listed, read_radiograph, self._transform)


def list_radiographs(root: Path, split: str) -> list[Radiograph]:
    """Read one of MURA's lists.

    Args:
        root: The folder `MURA-v1.1`.
        split: `"train"` or `"valid"`.

    Returns:
        The listed images, in the order of the list.

    Raises:
        ValueError: If the list is missing, or a line of it is none of MURA's.
    """
    listing = root / f"{split}_image_paths.csv"
    if not listing.is_file():
        raise ValueError(f"There is no {listing}; set root to the folder MURA-v1.1.")
    radiographs = []
    for number, line in enumerate(listing.read_text().split(), start=1):
        study = _STUDY.search(line)
        if study is None:
            raise ValueError(
                f"Line {number} of {listing} is {line!r}, which names no study1_positive or "
                "study1_negative folder; mend the list."
            )
        # The lines begin with the root's own name, whatever the folder is called by now.
        path = root.joinpath(*Path(line).parts[1:])
        radiographs.append(Radiograph(path, int(study[1] == "positive")))
    return radiographs


def read_radiograph(radiograph: Radiograph) -> AnnotatedImage:
    """Read one image.

    Args:
        radiograph: Where it is.

    Returns:
        The image and its label.

    Raises:
        ValueError: If the file is missing or is no image.
    """
    return AnnotatedImage(read_rgb(radiograph.path), radiograph.label)
