"""An image classifier of the usual kind, around any timm model."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import lightning as L
import timm
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from timm.optim import param_groups_weight_decay  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn

Batch = Mapping[str, Tensor] | Sequence[Tensor]


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
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model: nn.Module = timm.create_model(
            model_name, pretrained=pretrained, num_classes=num_classes, **(model_kwargs or {})
        )
        self.lr = lr
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
        loss = classification_loss(self(images), labels)
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
        groups = param_groups_weight_decay(self.model, self.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=self.lr)
        steps = int(self.trainer.estimated_stepping_batches)
        return with_warmup(optimizer, steps, self.warmup_fraction)

    def _evaluate(self, stage: str, batch: Batch) -> None:
        images, labels = images_and_labels(batch)
        logits = self(images)
        loss = classification_loss(logits, labels)
        accuracy = (predicted_labels(logits) == labels).float().mean()
        self.log(f"{stage}_loss", loss, batch_size=len(labels), sync_dist=True)
        self.log(f"{stage}_acc", accuracy, batch_size=len(labels), sync_dist=True, prog_bar=True)


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


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the cross entropy; that of a sigmoid if there is one logit.

    Args:
        logits: `[B, C]`.
        labels: `[B]`, class indices, or 0 and 1 for one logit.

    Returns:
        Mean over the batch, `[]`.
    """
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits.dtype))
    return F.cross_entropy(logits, labels)


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
