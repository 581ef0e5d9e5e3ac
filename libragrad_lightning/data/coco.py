"""COCO with class masks: one class of each image, or two classes that occur together."""

from collections.abc import Sequence
from functools import partial

from libragrad_lightning.data.annotated import AnnotatedDataset, choose
from libragrad_lightning.data.annotated_module import AnnotatedDataModule
from libragrad_lightning.data.batches import Split
from libragrad_lightning.data.coco_annotations import CocoImage
from libragrad_lightning.data.coco_masks import class_mask
from libragrad_lightning.data.coco_samples import (
    ClassRegion,
    CocoSample,
    category_labels,
    class_regions,
    crop_shares,
    image_path,
    largest_class,
    overlap,
    read_coco_sample,
    read_split,
    split_gray_bits,
)
from libragrad_lightning.image_files import check_gray_bits


class CocoDataModule(AnnotatedDataModule):
    """COCO as a classification task: an image's class is the one that covers most of it.

    `root/val2017/` holds the images and `root/annotations/instances_val2017.json` the annotations;
    training likewise. `mask` is the union of all annotations of the class: polygons, RLEs and
    crowds. Testing uses the validation images.

    Args:
        root: Folder with the images' folders and `annotations`.
        model_name: The timm model whose evaluation transform is used; training images get it too.
        image_size: Height and width of the images, pixels, or None for the model's own.
        labels: Class index of each category to use, by name, or None to number all of them in the
            order of the annotation file's numbers.
        min_share: Smallest share of the model's crop that the class must cover; other validation
            images are left out, after the draw of `max_images`. 0 to 1.
        max_images: Number of validation images drawn by `subset_seed`, or None for all.
        subset_seed: Seed of that draw.
        train_name: Name of the training split.
        val_name: Name of the validation split.
        batch_size: Images in a batch.
        flip: Whether each training image is mirrored, with its mask, in half of its uses.
        num_workers: Worker processes of each data loader.
        gray_bits: Bits of grayscale images that have more than 8, or None: 8, 10, 12, 14 or 16,
            whichever covers 64 files of the training folder (of the validation folder where there
            is none). The range is the same for all images.

    Raises:
        ValueError: If timm knows no such model, `gray_bits` is out of range, or (in `setup`) a file
            is missing or faulty; the message gives the number of the faulty annotation or of the
            missing image.
    """

    def __init__(
        self,
        root: str,
        model_name: str = "vit_base_patch16_224.augreg2_in21k_ft_in1k",
        image_size: int | None = None,
        labels: dict[str, int] | None = None,
        min_share: float = 0.05,
        max_images: int | None = None,
        subset_seed: int = 42,
        train_name: str = "train2017",
        val_name: str = "val2017",
        batch_size: int = 32,
        flip: bool = True,
        num_workers: int = 0,
        gray_bits: int | None = None,
    ) -> None:
        super().__init__(root, model_name, image_size, batch_size, flip, num_workers)
        self.save_hyperparameters()
        self._gray_bits = check_gray_bits(gray_bits)
        self._labels = labels
        self._min_share = min_share
        self._max_images = max_images
        self._subset_seed = subset_seed
        self._names: dict[Split, str] = {"train": train_name, "val": val_name, "test": val_name}

    def build(self, split: Split) -> AnnotatedDataset[CocoSample]:
        """Read the annotations and choose the images.

        Args:
            split: `"train"`, `"val"` or `"test"`.

        Returns:
            The images.

        Raises:
            ValueError: If a file is missing or faulty.
        """
        annotations, folder = read_split(self._root, self._names[split])
        labels = category_labels(annotations, self._labels)
        samples = [
            CocoSample(image_path(folder, image), image, region)
            for image in annotations.images
            if (region := largest_class(annotations, image, labels)) is not None
        ]
        if split != "train":
            drawn = choose(samples, self._max_images, self._subset_seed)
            samples = [
                sample
                for sample in drawn
                if crop_shares(self._transform, sample)[0] >= self._min_share
            ]
        # Both splits have to be read alike.
        bits = self._gray_bits or split_gray_bits([self._root / self._names["train"], folder])
        read = partial(read_coco_sample, gray_bits=bits)
        return AnnotatedDataset(samples, read, self._transform)


class CocoTogetherDataModule(AnnotatedDataModule):
    """Images of COCO in which two classes occur together, such as zebras and elephants.

    The protocol of the paper's class-discrimination figures: both classes cover more than
    `min_share` of the image, their masks overlap by no more than `max_overlap` of the smaller one,
    and after the model's crop each still covers `min_crop_share`. Each image occurs twice: once
    with the first class as `label` and `mask`, once with the second; the class that is not asked
    for is `other_label` and `other_mask`. Validation and test use the same images; there is no
    training.

    Args:
        root: Folder with the images' folders and `annotations`.
        labels: The model's class index of the two categories, by name. The default is ImageNet's.
        model_name: The timm model whose evaluation transform is used.
        image_size: Height and width of the images, pixels, or None for the model's own.
        min_share: Share of the image that each class must exceed, 0 to 1.
        max_overlap: Largest share of the smaller mask that the other one may cover, 0 to 1.
        min_crop_share: Smallest share of the crop that each class must cover, 0 to 1.
        split_name: Name of the split.
        batch_size: Images in a batch.
        num_workers: Worker processes of each data loader.
        gray_bits: Bits of grayscale images that have more than 8, or None: 8, 10, 12, 14 or 16,
            whichever covers 64 files of the folder. The range is the same for all images.

    Raises:
        ValueError: If there are not two labels, timm knows no such model, `gray_bits` is out of
            range, or (in `setup`) a file is missing or faulty, or no image fits.
    """

    def __init__(
        self,
        root: str,
        labels: dict[str, int] | None = None,
        model_name: str = "vit_base_patch16_224.augreg2_in21k_ft_in1k",
        image_size: int | None = None,
        min_share: float = 0.05,
        max_overlap: float = 0.7,
        min_crop_share: float = 0.02,
        split_name: str = "train2017",
        batch_size: int = 32,
        num_workers: int = 0,
        gray_bits: int | None = None,
    ) -> None:
        pair = {"zebra": 340, "elephant": 386} if labels is None else labels
        if len(pair) != 2:
            raise ValueError(f"labels must name two categories, but is {labels}; change labels.")
        super().__init__(root, model_name, image_size, batch_size, False, num_workers)
        self.save_hyperparameters()
        self._gray_bits = check_gray_bits(gray_bits)
        self._labels = pair
        self._min_share = min_share
        self._max_overlap = max_overlap
        self._min_crop_share = min_crop_share
        self._split_name = split_name

    def build(self, split: Split) -> AnnotatedDataset[CocoSample]:
        """Read the annotations and choose the images.

        Args:
            split: `"val"` or `"test"`, which are the same.

        Returns:
            Each image twice.

        Raises:
            ValueError: For `"train"`, or if a file is missing or faulty, or no image fits.
        """
        self._refuse_training(split)
        annotations, folder = read_split(self._root, self._split_name)
        labels = category_labels(annotations, self._labels)
        samples = []
        for image in annotations.images:
            regions = class_regions(annotations, image, labels)
            if len(regions) == 2 and self._separate(image, regions):
                path, (first, second) = image_path(folder, image), regions
                pair = CocoSample(path, image, first, second)
                if min(crop_shares(self._transform, pair)) >= self._min_crop_share:
                    samples += [pair, CocoSample(path, image, second, first)]
        if not samples:
            raise ValueError(
                f"No image of {annotations.path} shows {' and '.join(labels)} as large and as far "
                "apart as asked for; change labels, min_share, max_overlap or split_name."
            )
        read = partial(read_coco_sample, gray_bits=self._gray_bits or split_gray_bits([folder]))
        return AnnotatedDataset(samples, read, self._transform)

    def _separate(self, image: CocoImage, regions: Sequence[ClassRegion]) -> bool:
        first, second = (class_mask(image, region.instances) for region in regions)
        smaller = min(int(first.sum()), int(second.sum()))
        if smaller <= self._min_share * first.size:
            return False
        return overlap(first, second) <= self._max_overlap
