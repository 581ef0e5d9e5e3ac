"""Image folders: ImageNet, ImageNet-Hard, and a user's own, with masks if there are any."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from libragrad_lightning.data.annotated import (
    AnnotatedDataset,
    AnnotatedImage,
    check_same_size,
    choose,
)
from libragrad_lightning.data.annotated_module import AnnotatedDataModule
from libragrad_lightning.data.batches import Split
from libragrad_lightning.data.imagenet import imagenet_index, imagenet_names
from libragrad_lightning.data.mask_files import read_mask
from libragrad_lightning.image_files import (
    check_gray_bits,
    measure_gray_bits,
    read_rgb,
    spread,
)


@dataclass(frozen=True)
class LabelledFile:
    """An image file and its class.

    Attributes:
        path: The file.
        label: Class index.
        mask: The mask's file, or None.
    """

    path: Path
    label: int
    mask: Path | None


class ImageFolderDataModule(AnnotatedDataModule):
    """Images in one folder per class, in one folder per split: `root/val/n02391049/any.JPEG`.

    ImageNet has this form once its validation images are sorted into the folders of their synsets.
    For ImageNet-Hard, save each image into the folder of the synset of its first label: with
    `imagenet_labels`, classes may be missing. Testing uses the validation images.

    If there are masks, they are PNG files of the image's name in another tree of the same form,
    `root/val_masks/n02391049/any.png`, whose pixels are not 0 on the object. Indexed files are read
    as class numbers, and void pixels (255 beside other classes) become `ignore`; see
    `libragrad_lightning.data.mask_files`. Photographs are turned as their EXIF orientation says, so
    masks have to be drawn upright.

    Args:
        root: Folder of the split folders.
        model_name: The timm model whose evaluation transform is used; training images get it too.
        image_size: Height and width of the images, pixels, or None for the model's own.
        imagenet_labels: Whether class folders are named after ImageNet's synsets, and labels are
            its class indices; else labels number the sorted class folders.
        masks: Ending of the names of the folders that hold the masks, such as `_masks`, or None.
        max_images: Number of validation images, drawn by `subset_seed`, or None for all.
        subset_seed: Seed of that draw; the paper draws 1000 images with 43.
        train_folder: Name of the folder with the training images.
        val_folder: Name of the folder with the validation images.
        batch_size: Images in a batch.
        flip: Whether each training image is mirrored, with its mask, in half of its uses.
        num_workers: Worker processes of each data loader.
        gray_bits: Bits of grayscale images that have more than 8, such as radiographs in 16-bit
            files, or None: 8, 10, 12, 14 or 16, whichever covers up to 64 files of the training
            folder (of the validation folder where there is none). The range is the same for all
            images.

    Raises:
        ValueError: If timm knows no such model, `gray_bits` is out of range, or (in `setup`) a
            folder does not hold what it should.
    """

    def __init__(
        self,
        root: str,
        model_name: str = "vit_base_patch16_224.augreg2_in21k_ft_in1k",
        image_size: int | None = None,
        imagenet_labels: bool = False,
        masks: str | None = None,
        max_images: int | None = None,
        subset_seed: int = 43,
        train_folder: str = "train",
        val_folder: str = "val",
        batch_size: int = 32,
        flip: bool = True,
        num_workers: int = 0,
        gray_bits: int | None = None,
    ) -> None:
        super().__init__(root, model_name, image_size, batch_size, flip, num_workers)
        self.save_hyperparameters()
        self.class_names = imagenet_names() if imagenet_labels else ()
        """Names of the classes, in the order of the labels; without ImageNet's, from `setup` on."""
        self._imagenet_labels = imagenet_labels
        self._masks = masks
        self._max_images = max_images
        self._subset_seed = subset_seed
        self._gray_bits = check_gray_bits(gray_bits)
        self._folders: dict[Split, str] = {
            "train": train_folder,
            "val": val_folder,
            "test": val_folder,
        }

    def build(self, split: Split) -> AnnotatedDataset[LabelledFile]:
        """List the images of a split.

        Args:
            split: `"train"`, `"val"` or `"test"`.

        Returns:
            The images.

        Raises:
            ValueError: If the folder does not hold what it should.
        """
        folder = self._root / self._folders[split]
        masks = None if self._masks is None else folder.with_name(folder.name + self._masks)
        labels = self._labels(folder)
        files = list_images(folder, labels, masks)
        if split != "train":
            files = choose(files, self._max_images, self._subset_seed)
        read = partial(read_labelled_file, gray_bits=self._gray_range(folder))
        return AnnotatedDataset(files, read, self._transform)

    def _gray_range(self, folder: Path) -> int:
        if self._gray_bits is not None:
            return self._gray_bits
        # Both splits have to be read alike, and one class's images like another's.
        train = self._root / self._folders["train"]
        return measure_gray_bits(sample_images(train if train.is_dir() else folder))

    def _labels(self, folder: Path) -> dict[str, int]:
        names = class_folders(folder)
        if self._imagenet_labels:
            return {name: imagenet_index(name, f"A folder of {folder}") for name in names}
        # The training folder decides, so that a class without validation images shifts no label.
        train = self._root / self._folders["train"]
        known = class_folders(train) if train.is_dir() else names
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise ValueError(
                f"The class folder {unknown[0]} of {folder} is not in {train}; rename it."
            )
        self.class_names = tuple(known)
        return {name: known.index(name) for name in names}


def list_images(folder: Path, labels: dict[str, int], masks: Path | None) -> list[LabelledFile]:
    """List the images of class folders and of the folders in them, as torchvision's `ImageFolder`.

    That class itself is not used: it opens photographs as they are stored, on their side and deep
    grayscale as white.

    Args:
        folder: Holds the class folders.
        labels: Class index of each class folder.
        masks: Folder of the same form with the masks, or None.

    Returns:
        At least one file.

    Raises:
        ValueError: If there is no image.
    """
    found = make_dataset(folder, labels, IMG_EXTENSIONS, allow_empty=True)
    if not found:
        raise ValueError(f"The class folders of {folder} hold no image; change root.")
    return [
        LabelledFile(path, label, masks and masks / path.relative_to(folder).with_suffix(".png"))
        for path, label in ((Path(name), label) for name, label in found)
    ]


def sample_images(folder: Path) -> list[Path]:
    """List some images of class folders, without listing all of a large data set.

    Args:
        folder: Holds the class folders.

    Returns:
        Up to 8 images of each of up to 8 classes, evenly spaced; the same ones every time.
    """
    classes = spread(class_folders(folder), 8)
    return [path for name in classes for path in spread(_images(folder / name), 8)]


def read_labelled_file(file: LabelledFile, gray_bits: int) -> AnnotatedImage:
    """Read an image and, if it has one, its mask.

    Args:
        file: Where they are.
        gray_bits: Bits of a grayscale image that has more than 8, 1 to 16.

    Returns:
        The image, its label and, with a mask, the pixels of the object and those to ignore.

    Raises:
        ValueError: If a file is missing, is no image, or the sizes differ.
    """
    image = read_rgb(file.path, gray_bits)
    if file.mask is None:
        return AnnotatedImage(image, file.label)
    mask, void = read_mask(file.mask)
    check_same_size(image, mask, file.mask)
    return AnnotatedImage(image, file.label, mask, void)


def _images(folder: Path) -> list[Path]:
    found = make_dataset(folder.parent, {folder.name: 0}, IMG_EXTENSIONS, allow_empty=True)
    return [Path(name) for name, _ in found]


def class_folders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, in their order.

    Raises:
        ValueError: If there is none.
    """
    try:
        return find_classes(folder)[0]
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"{folder} holds no class folders; change root or the split's folder."
        ) from None
