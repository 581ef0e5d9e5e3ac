"""The data module for cut-outs on backgrounds: a user's own, or Debian's photographs."""

from pathlib import Path

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from libragrad_lightning.data.batches import SPLITS, Split
from libragrad_lightning.data.module import SplitDataModule
from libragrad_lightning.data.scenes.checks import check_composition, check_shares
from libragrad_lightning.data.scenes.composition import Composition, SceneParts
from libragrad_lightning.data.scenes.cutouts import (
    Shares,
    deal,
    deal_classes,
    list_cutouts,
    list_pictures,
    read_background,
    read_cutout,
)
from libragrad_lightning.data.scenes.datasets import SceneDataset


class CutoutDataModule(SplitDataModule):
    """Photographs of objects, cut out, on photographs of places, with exact masks.

    `objects` holds one folder of cut-outs for each class: pictures with an alpha channel that is 0
    beside the object. `backgrounds` holds pictures without any of these objects. Every class and
    the backgrounds are dealt out to training, validation and (if `test_share` is above 0) test: no
    object and no background is in two splits. Classes are drawn evenly. All pictures are kept in
    memory, at the size needed.

    Batches are described in `libragrad_lightning.data.batches`. A pixel belongs to the mask if it
    shows more object than background (alpha at least 128 of 255). Validation and test scenes depend
    on `split_seed` alone, training scenes on `seed` too.

    `PYTHONPATH=examples python -m cutout_scenes.photographs data/photographs` fetches two from
    Debian's packages.

    Args:
        objects: Folder of class folders.
        backgrounds: Folder of pictures.
        classes: Names of the class folders to use, or None for all.
        image_size: Height and width of a scene, pixels.
        num_objects: 1, or 2 for two objects of different classes side by side. The first one is
            `label` and `mask`, the second `other_label` and `other_mask`.
        object_size: Smallest and largest size of an object, as a share of the frame (of its half,
            in scenes with two objects), above 0 and at most 1.
        shortcut: Share of the scenes, in all splits, whose background has the color of the class
            (a spurious cue to be found by the audit), 0 to 1.
        num_train: Training scenes.
        num_val: Validation scenes.
        num_test: Test scenes.
        val_share: Share of each class and of the backgrounds that is kept for validation.
        test_share: Share of each class and of the backgrounds that is kept for the test.
        batch_size: Images in a batch.
        flip: Whether each training image is mirrored, with its mask, in half of its uses.
        mean: Subtracted from each channel, as a share of the pixel range.
        std: Each channel is divided by it, the same share.
        seed: Seed of the training scenes.
        split_seed: Decides which objects and backgrounds are held out, and the held-out scenes.
        num_workers: Worker processes of each data loader.

    Raises:
        ValueError: If an argument is outside its range, or a folder does not hold what it should.
    """

    def __init__(
        self,
        objects: str,
        backgrounds: str,
        classes: list[str] | None = None,
        image_size: int = 112,
        num_objects: int = 1,
        object_size: tuple[float, float] = (0.4, 0.8),
        shortcut: float = 0.0,
        num_train: int = 1120,
        num_val: int = 240,
        num_test: int = 240,
        val_share: float = 0.3,
        test_share: float = 0.0,
        batch_size: int = 32,
        flip: bool = True,
        mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN,
        std: tuple[float, float, float] = IMAGENET_DEFAULT_STD,
        seed: int = 0,
        split_seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, flip, num_workers)
        self._composition = Composition(image_size, num_objects, object_size, shortcut)
        check_composition(self._composition)
        shares = Shares(val_share, test_share, split_seed)
        check_shares(shares)
        self.save_hyperparameters()
        files = list_cutouts(Path(objects), classes)
        self.class_names = tuple(files)
        """Names of the classes, in the order of the labels."""
        if num_objects > len(files):
            raise ValueError(
                f"Scenes with 2 objects need 2 classes, but {objects} has {len(files)}; "
                "change objects, classes or num_objects."
            )
        self._objects = deal_classes(files, shares)
        self._backgrounds = deal(
            list_pictures(Path(backgrounds), "backgrounds"), "backgrounds", shares
        )
        self._counts: dict[Split, int] = {"train": num_train, "val": num_val, "test": num_test}
        self._seeds: dict[Split, int] = {"train": seed, "val": 0, "test": 0}
        self._split_seed = split_seed
        self.image_mean, self.image_std = mean, std

    def files(self, split: Split) -> tuple[Path, ...]:
        """List the pictures of a split.

        Args:
            split: `"train"`, `"val"` or `"test"`.

        Returns:
            The cut-outs, class by class, then the backgrounds.
        """
        cutouts = [path for one_class in self._objects[split] for path in one_class]
        return (*cutouts, *self._backgrounds[split])

    def build(self, split: Split) -> SceneDataset:
        """Read the pictures of a split.

        Args:
            split: `"train"`, `"val"` or `"test"`.

        Returns:
            The split's scenes.

        Raises:
            ValueError: If the split has no share, or a picture is not a cut-out.
        """
        if not self._backgrounds[split]:
            raise ValueError(
                "No objects and backgrounds are kept for the test, since test_share is 0; "
                "set test_share above 0 before training."
            )
        size = self._composition.image_size
        parts = SceneParts(
            [[read_cutout(path, size) for path in paths] for paths in self._objects[split]],
            [read_background(path, 2 * size) for path in self._backgrounds[split]],
        )
        seed = (self._split_seed, SPLITS.index(split), self._seeds[split])
        return SceneDataset(
            parts, self._composition, self._counts[split], seed, self.image_mean, self.image_std
        )
