"""An image classifier of the usual kind, around any timm model."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import lightning as L
import timm
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from timm.optim import param_groups_weight_decay  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn

from libragrad_lightning.demo.conv_stem import ConvStem

Batch = Mapping[str, Tensor] | Sequence[Tensor]

_STEMS: Mapping[str, dict[str, Any]] = {
    "linear": {},
    "convolutions": {"embed_layer": ConvStem, "pos_embed": "none"},
}
"""What `timm.create_model` is told."""


class ImageClassifier(L.LightningModule):
    """A timm model trained with cross entropy, AdamW, warm-up and cosine decay.

    A batch is a mapping with `image` `[B, C, H, W]` and `label` `[B]`, or a pair of the two.
    Logged are `train_loss` in each step, and `val_loss`, `val_acc`, `test_loss` and `test_acc` as
    means over an epoch; with several validation or test loaders, Lightning adds which one to the
    name (`val_acc/dataloader_idx_0`).

    Args:
        model_name: A name that `timm.create_model` knows.
        model_kwargs: Further arguments of `timm.create_model`, such as `img_size`.
        pretrained: Whether timm loads its pretrained weights, which it may have to download.
        num_classes: Number of logits: that of the classes, or 1 for labels 0 and 1.
        lr: Learning rate at its peak.
        weight_decay: Weight decay of the weight matrices; biases and normalizations have none.
        warmup_fraction: Share of all steps in which the learning rate rises linearly, 0 to 1.
        head_lr: That of the classification layer, which pretrained weights do not have; `lr` if
            omitted.
        label_smoothing: Share of the aim that is spread over all classes in training, 0 to 1.
        frozen: Parameters of the model that keep their values, and modules whose parameters all do,
            by the beginnings of their names, such as ``blocks.0``.
        stem: How a vision transformer embeds patches: ``linear``, or by ``convolutions``
            (`ConvStem`), with which a small one learns much faster.

    Raises:
        ValueError: If the model has no parameter of a name in `frozen`.

    Example:
        >>> classifier = ImageClassifier(
        ...     model_kwargs={"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 1}
        ... )
        >>> classifier(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        model_name: str = "vit_tiny_patch16_224",
        model_kwargs: dict[str, Any] | None = None,
        pretrained: bool = False,
        num_classes: int = 10,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        warmup_fraction: float = 0.1,
        head_lr: float | None = None,
        label_smoothing: float = 0.0,
        frozen: Sequence[str] = (),
        stem: Literal["linear", "convolutions"] = "linear",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model: nn.Module = timm.create_model(
            model_name,
            pretrained=pretrained,
            num_classes=num_classes,
            **(model_kwargs or {}),
            **_STEMS[stem],
        )
        _freeze(self.model, frozen)
        self.lr, self.head_lr = lr, lr if head_lr is None else head_lr
        self.label_smoothing = label_smoothing
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits.

        Args:
            images: `[B, C, H, W]` float.

        Returns:
            Logits, `[B, num_classes]`.
        """
        logits: Tensor = self.model(images)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the cross entropy of a batch and log it as `train_loss`."""
        images, labels = images_and_labels(batch)
        loss = classification_loss(self(images), labels, self.label_smoothing)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log `val_loss` and `val_acc`."""
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log `test_loss` and `test_acc`."""
        self._evaluate("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the class probabilities of a batch, `[B, num_classes]`."""
        images, _ = images_and_labels(batch)
        logits = self(images)
        return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=-1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW and a schedule that is advanced after every step."""
        head = list(self.model.get_classifier().parameters())  # type: ignore[operator]
        groups = param_groups_weight_decay(self.model, self.weight_decay)
        optimizer = torch.optim.AdamW(_apart(groups, head, self.head_lr), lr=self.lr)
        steps = int(self.trainer.estimated_stepping_batches)
        return with_warmup(optimizer, steps, self.warmup_fraction)

    def _evaluate(self, stage: str, batch: Batch) -> None:
        images, labels = images_and_labels(batch)
        logits = self(images)
        loss = classification_loss(logits, labels)
        accuracy = (predicted_labels(logits) == labels).float().mean()
        self.log(f"{stage}_loss", loss, batch_size=len(labels), sync_dist=True)
        self.log(f"{stage}_acc", accuracy, batch_size=len(labels), sync_dist=True, prog_bar=True)


def _freeze(model: nn.Module, names: Sequence[str]) -> None:
    for name in names:
        chosen = [p for n, p in model.named_parameters() if f"{n}.".startswith(f"{name}.")]
        if not chosen:
            raise ValueError(
                f"The model has no parameter or module named {name}; change frozen to names of "
                f"these or parts of them: {', '.join(n for n, _ in model.named_children())}."
            )
        for parameter in chosen:
            parameter.requires_grad_(False)


def _apart(
    groups: Sequence[dict[str, Any]], head: Sequence[Tensor], head_lr: float
) -> list[dict[str, Any]]:
    """Split groups of parameters so that those of the head have a learning rate of their own."""
    own = {id(parameter) for parameter in head}
    found = []
    for group in groups:
        rest = [p for p in group["params"] if id(p) not in own]
        heads = [p for p in group["params"] if id(p) in own]
        found += [group | {"params": rest}, group | {"params": heads, "lr": head_lr}]
    return [group for group in found if group["params"]]


def with_warmup(
    optimizer: torch.optim.Optimizer, steps: int, warmup_fraction: float
) -> OptimizerLRScheduler:
    """Return an optimizer with a schedule that is advanced after every step.

    Args:
        optimizer: The optimizer, at its highest learning rate.
        steps: How many steps it takes in all.
        warmup_fraction: Share of them in which the learning rate rises linearly, 0 to 1.
    """
    schedule = partial(warmup_cosine, warmup_steps=int(warmup_fraction * steps), total_steps=steps)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def images_and_labels(batch: Batch) -> tuple[Tensor, Tensor]:
    """Take the images and the labels out of a batch.

    Args:
        batch: A mapping with `image` and `label`, or a sequence that begins with the two.

    Returns:
        Images `[B, C, H, W]` and labels `[B]`.
    """
    if isinstance(batch, Mapping):
        return batch["image"], batch["label"]
    return batch[0], batch[1]


def classification_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Compute the cross entropy; that of a sigmoid if there is one logit.

    Args:
        logits: `[B, C]`.
        labels: `[B]`, class indices, or 0 and 1 for one logit.
        label_smoothing: Share of the aim that is spread over all classes, 0 to 1.

    Returns:
        Mean over the batch, `[]`.
    """
    if logits.shape[1] == 1:
        aims = labels.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits[:, 0], aims)
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)


def predicted_labels(logits: Tensor) -> Tensor:
    """Choose the most probable class.

    Args:
        logits: `[B, C]`.

    Returns:
        Class indices, or for one logit whether it is positive, `[B]` int64.
    """
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)


def warmup_cosine(step: int, warmup_steps: int, total_steps: int) -> float:
    """Give the learning rate's factor: a linear rise, then half a cosine down to zero.

    Args:
        step: Steps done so far.
        warmup_steps: Steps of the rise.
        total_steps: Steps of the whole training.

    Returns:
        A factor in [0, 1].
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
