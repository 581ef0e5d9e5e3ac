"""``libragrad audit``: what a model looks at in a folder of images, as one page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch.nn.functional as F
from torch import Tensor

from libragrad_lightning.callbacks import LibraGradAudit
from libragrad_lightning.commands.models import NamedModel, timm_model
from libragrad_lightning.data.annotated import AnnotatedDataset
from libragrad_lightning.data.annotated_module import AnnotatedDataModule
from libragrad_lightning.data.batches import Split
from libragrad_lightning.data.image_folder import (
    LabelledFile,
    class_folders,
    list_images,
    read_labelled_file,
    sample_images,
)
from libragrad_lightning.data.imagenet import imagenet_indices, imagenet_names
from libragrad_lightning.image_files import measure_gray_bits
from libragrad_lightning.parsing import SentenceParser


def run(arguments: Sequence[str]) -> None:
    """Run the command with the arguments behind its name."""
    parser = SentenceParser(prog="libragrad audit", description=__doc__)
    parser.add_argument("--config", action="config", help="A file with some of the arguments.")
    parser.add_argument(
        "--rules", nargs="+", type=str, default=["plain", "libra"], help="Rule sets to compare."
    )
    parser.add_argument(
        "--random_weights", action="store_true", help="Leave the weights as they are drawn."
    )
    by_hand: set[str | int] = {"rules", "random_weights"}
    parser.add_function_arguments(audit_folder, as_positional=True, skip=by_hand)
    given = vars(parser.parse_args(list(arguments)))
    given.pop("config")
    audit_folder(**given)


def audit_folder(
    images: str,
    model: str = "vit_base_patch16_224.augreg2_in21k_ft_in1k",
    checkpoint: str | None = None,
    random_weights: bool = False,
    masks: str | None = None,
    max_samples: int = 64,
    method: str = "fullgrad_plus",
    rules: Sequence[str] = ("plain", "libra"),
    num_images: int = 8,
    batch_size: int = 32,
    output: str = "audit",
) -> None:
    """Audit what a model looks at in images, and write the page ``audit.html``.

    Args:
        images: A folder with a folder of images for each class. They are the model's classes in the
            order of their names; folders that are named after ImageNet's synsets are its classes.
        model: A model of timm by its name.
        checkpoint: A file of its weights, in place of the pretrained ones.
        random_weights: Whether to leave the weights as they are drawn.
        masks: A folder of the same form with a PNG file for each image, not 0 on the object.
        max_samples: How many images are explained, of all classes in turn.
        method: The attribution method.
        rules: Rule sets to compare.
        num_images: How many images are drawn.
        batch_size: Images explained at once.
        output: The folder of the page, and of the pictures.
    """
    named = timm_model(model, checkpoint, random_weights)
    data = ImagesOfClasses(images, masks, model.removeprefix("timm/"), named, batch_size)
    audit = LibraGradAudit(
        max_samples=max_samples,
        probe="stratified",
        method=method,
        rules=list(rules),
        num_images=num_images,
        batch_size=batch_size,
    )
    trainer = pl.Trainer(
        callbacks=[audit], logger=False, default_root_dir=output, enable_model_summary=False
    )
    trainer.validate(Scored(named), data, verbose=False)
    print(Path(output) / "audit.html")


class Scored(pl.LightningModule):
    """A model that is validated.

    Args:
        named: The model.
    """

    def __init__(self, named: NamedModel) -> None:
        super().__init__()
        self.net = named.model

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Compare the scores with the labels."""
        self.log("val_loss", F.cross_entropy(self.net(batch["image"]), batch["label"]))


class ImagesOfClasses(AnnotatedDataModule):
    """Images in one folder per class, for validation alone.

    Args:
        images: The folder of the classes' folders.
        masks: A folder of the same form with masks, or None.
        model_name: The timm model whose evaluation transform is used.
        named: The model, which has to have as many classes.
        batch_size: Images in a batch.
    """

    def __init__(
        self,
        images: str,
        masks: str | None,
        model_name: str,
        named: NamedModel,
        batch_size: int,
    ) -> None:
        super().__init__(images, model_name, None, batch_size, flip=False, num_workers=0)
        self._masks = None if masks is None else Path(masks)
        try:
            folders = class_folders(self._root)
        except ValueError:
            raise ValueError(f"{images} holds no folders of classes; change images.") from None
        classes = int(named.model.num_classes)  # type: ignore[arg-type]
        synsets = imagenet_indices()
        if named.class_names == imagenet_names() and synsets.keys() >= set(folders):
            self._labels = {name: synsets[name] for name in folders}
            self.class_names: tuple[str, ...] = named.class_names
        elif len(folders) == classes:
            self._labels = {name: number for number, name in enumerate(folders)}
            self.class_names = tuple(folders)
        else:
            raise ValueError(
                f"{images} holds folders of {len(folders)} classes, but the model has {classes}; "
                "change images, or pass a checkpoint of a model of these classes."
            )

    def build(self, split: Split) -> AnnotatedDataset[LabelledFile]:
        """List the images.

        Raises:
            ValueError: If there is none, or training images are asked for.
        """
        self._refuse_training(split)
        files: Any = list_images(self._root, self._labels, self._masks)
        bits = measure_gray_bits(sample_images(self._root))
        return AnnotatedDataset(files, partial(read_labelled_file, gray_bits=bits), self._transform)
