"""``libragrad audit``: what a model looks at in a folder of images, as one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch.nn.functional as F
from torch import Tensor

from libragrad_lightning.callbacks import LibraGradAudit
from libragrad_lightning.commands.arguments import CommandArguments
from libragrad_lightning.commands.images import ImagesOfCategories, ImagesOfClasses
from libragrad_lightning.commands.models import Build, NamedModel, timm_model


def run(arguments: Sequence[str]) -> None:
    """Run the command with the arguments behind its name."""
    command = CommandArguments("audit", __doc__)
    command.add_rules("Rule sets to compare.")
    command.add_random_weights()
    command.call(audit_folder, arguments, as_positional=True)


def audit_folder(
    images: str,
    model: str = "vit_base_patch16_224.augreg2_in21k_ft_in1k",
    checkpoint: str | None = None,
    random_weights: bool = False,
    image_size: int | None = None,
    model_kwargs: dict[str, Any] | None = None,
    masks: str | None = None,
    coco: str | None = None,
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
            With `coco`, the folder of the images that it annotates.
        model: A model of timm by its name.
        checkpoint: A file of its weights, in place of the pretrained ones.
        random_weights: Whether to leave the weights as they are drawn.
        image_size: The side of images that the weights were trained with, if it is another than
            timm's.
        model_kwargs: Further arguments of `timm.create_model` that the model was made with.
        masks: A folder of the same form with a PNG file for each image, not 0 on the object.
        coco: A file of annotations in COCO's form: an image has the class that covers most of it,
            and that class's annotations are its mask. Categories are the model's classes, by their
            names or in the order of their numbers.
        max_samples: How many images are explained, of all classes in turn.
        method: The attribution method.
        rules: Rule sets to compare.
        num_images: How many images are drawn.
        batch_size: Images explained at once.
        output: The folder of the page, and of the pictures.

    Raises:
        ValueError: If images, masks, annotations and model do not fit together.
    """
    if masks is not None and coco is not None:
        raise ValueError("Both masks and coco are given; leave out one of the two.")
    build, name = Build(image_size, model_kwargs or {}), model.removeprefix("timm/")
    named = timm_model(model, checkpoint, random_weights, build)
    data = (
        ImagesOfClasses(images, masks, name, named, batch_size)
        if coco is None
        else ImagesOfCategories(images, coco, name, named, batch_size)
    )
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
