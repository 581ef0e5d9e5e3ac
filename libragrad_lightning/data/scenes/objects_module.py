"""The data module whose every cut-out is a class of its own: which object does a scene show?"""

from pathlib import Path
from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import DataLoader

from libragrad_lightning.data.batches import SPLITS, Split
from libragrad_lightning.data.module import SplitDataModule
from libragrad_lightning.data.scenes.checks import check_composition, check_shares
from libragrad_lightning.data.scenes.composition import Composition, SceneParts, Variation
from libragrad_lightning.data.scenes.cutouts import (
    Shares,
    deal,
    list_cutouts,
    list_pictures,
    read_background,
    read_cutout,
)
from libragrad_lightning.data.scenes.datasets import AskedTwice, FreshSceneDataset, SceneDataset


class ObjectsDataModule(SplitDataModule):
    """Scenes that show one object each, on photographs of places, and the question which it is.

    `objects` holds folders of cut-outs, pictures with an alpha channel; of each folder the first
    few, in the order of their names, are the objects, each a class of its own. `backgrounds` holds
    photographs without any of them, some of which occur in no training scene. Objects are turned,
    mirrored, made brighter or darker, and lie anywhere at any size of a range. Training scenes are
    composed afresh in every epoch; validation and test scenes are always the same.

    There are two validation loaders. The first shows scenes with one object; the second scenes with
    two objects side by side, each scene twice: asked for one object, then for the other. No model
    can be right on more than half of these questions: they are there to be explained. The test
    shows scenes with one object, others than in validation, on the same backgrounds.

    Batches are described in `libragrad_lightning.data.batches`; those of the second loader have
    `other_label` and `other_mask`.

    Args:
        objects: Folder of folders of cut-outs.
        backgrounds: Folder of pictures.
        per_folder: How many cut-outs of each folder are objects.
        image_size: Height and width of a scene, pixels.
        object_size: Smallest and largest size of an object, as a share of the frame, above 0 and at
            most 1.
        pair_size: The same for two objects in a scene, as a share of the half that each is in.
        rotation: Largest angle by which objects are turned to either side, degrees, 0 to 180.
        brightness: How much brighter or darker objects are at most, as a share, 0 to 1.
        num_train: Training scenes in an epoch.
        num_val: Validation scenes with one object.
        num_pairs: Validation scenes with two objects.
        num_test: Test scenes.
        val_share: Share of the backgrounds that occurs in no training scene.
        batch_size: Images in a batch.
        mean: Subtracted from each channel, as a share of the pixel range.
        std: Each channel is divided by it, the same share.
        seed: Seed of the training scenes, beside the state of torch's generator.
        split_seed: Decides which backgrounds are held out, and the held-out scenes.
        num_workers: Worker processes of each data loader.

    Raises:
        ValueError: If an argument is outside its range, or a folder does not hold what it should.
    """

    def __init__(
        self,
        objects: str,
        backgrounds: str,
        per_folder: int = 4,
        image_size: int = 112,
        object_size: tuple[float, float] = (0.35, 0.7),
        pair_size: tuple[float, float] = (0.7, 1.0),
        rotation: float = 25.0,
        brightness: float = 0.3,
        num_train: int = 1600,
        num_val: int = 400,
        num_pairs: int = 64,
        num_test: int = 400,
        val_share: float = 0.3,
        batch_size: int = 32,
        mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN,
        std: tuple[float, float, float] = IMAGENET_DEFAULT_STD,
        seed: int = 0,
        split_seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, False, num_workers)
        _check_range("rotation", rotation, 180)
        _check_range("brightness", brightness, 1)
        variation = Variation(rotation, brightness)
        self._single = Composition(image_size, 1, object_size, variation=variation)
        self._pairs = Composition(image_size, 2, pair_size, variation=variation)
        shares = Shares(val_share, 0, split_seed)
        check_composition(self._single)
        check_composition(self._pairs, "pair_size")
        check_shares(shares)
        self.save_hyperparameters()
        self.objects = first_cutouts(list_cutouts(Path(objects), None), per_folder)
        """The cut-outs, in the order of the labels."""
        self.class_names = tuple(path.stem.replace("_", " ") for path in self.objects)
        """Names of the objects, in the same order."""
        self.backgrounds = deal(
            list_pictures(Path(backgrounds), "backgrounds"), "backgrounds", shares
        )
        """The backgrounds of every split but the test, which shares those of validation."""
        self._counts: dict[Split, int] = {"train": num_train, "val": num_val, "test": num_test}
        self._num_pairs = num_pairs
        self._seeds = (split_seed, seed)
        self._parts: dict[Split, SceneParts] = {}
        self.image_mean, self.image_std = mean, std

    def build(self, split: Split) -> SceneDataset:
        """Read the pictures of a split.

        Args:
            split: `"train"`, `"val"` or `"test"`.

        Returns:
            Scenes with one object; in training, other ones in every epoch.

        Raises:
            ValueError: If a picture is not a cut-out.
        """
        kind = FreshSceneDataset if split == "train" else SceneDataset
        return self._scenes(kind, self._single, split, self._counts[split])

    def pairs(self) -> SceneDataset:
        """Return the held-out scenes with two objects."""
        return self._scenes(SceneDataset, self._pairs, "val", self._num_pairs)

    def val_dataloader(self) -> list[DataLoader[dict[str, Any]]]:  # type: ignore[override]
        """Return two loaders in fixed order: one object in a scene, and two."""
        asked = AskedTwice(self.pairs())
        # An even number of images in a batch keeps the two questions of a scene together.
        return [self._loader("val"), DataLoader[dict[str, Tensor]](asked, 2 * self.batch_size)]

    def _scenes(
        self, kind: type[SceneDataset], composition: Composition, split: Split, length: int
    ) -> SceneDataset:
        parts = self._read("train" if split == "train" else "val", composition.image_size)
        split_seed, seed = self._seeds
        seeds = (split_seed, SPLITS.index(split), seed if split == "train" else 0)
        numbers = (*seeds, composition.num_objects)
        return kind(parts, composition, length, numbers, self.image_mean, self.image_std)

    def _read(self, places: Split, size: int) -> SceneParts:
        """Return all objects, and the backgrounds of a split, read from their files once."""
        if places not in self._parts:
            known = next(iter(self._parts.values()), None)
            self._parts[places] = SceneParts(
                known.cutouts if known else [[read_cutout(path, size)] for path in self.objects],
                [read_background(path, 2 * size) for path in self.backgrounds[places]],
            )
        return self._parts[places]


def first_cutouts(files: dict[str, list[Path]], count: int) -> list[Path]:
    """Choose the first cut-outs of every folder.

    Args:
        files: Cut-outs by folder, in the order of their names.
        count: How many of each.

    Raises:
        ValueError: If a folder holds fewer, or there are fewer than two in all.
    """
    few = [f"{name} ({len(paths)})" for name, paths in files.items() if len(paths) < count]
    if few or count < 1 or count * len(files) < 2:
        raise ValueError(
            f"per_folder asks for the first {count} cut-outs of each of {len(files)} folders, of "
            f"which {', '.join(few) or 'none'} hold fewer, and two objects are the least; change "
            "per_folder or objects."
        )
    return [path for paths in files.values() for path in paths[:count]]


def _check_range(name: str, value: float, largest: float) -> None:
    if not 0 <= value <= largest:
        raise ValueError(f"{name} must lie between 0 and {largest}, but is {value}; change {name}.")
