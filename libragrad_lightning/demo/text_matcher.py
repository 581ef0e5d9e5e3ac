"""Trains a model of images and texts on scenes of garments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from timm.optim import param_groups_weight_decay  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor

from libragrad_lightning.demo.classifier import with_warmup
from libragrad_lightning.demo.image_text import ImageTextModel
from libragrad_lightning.demo.phrases import CLASS_PROMPTS, vocabulary
from libragrad_lightning.demo.word_tokenizer import WordTokenizer
from libragrad_lightning.prompts import text_prompts

_CONTEXT = 18
_APART = 10.0
"""Weight of the loss that tells texts apart."""


class TextMatcher(L.LightningModule):
    """Learns which texts are true of which images, by contrast with others (Radford et al. 2021).

    A training batch holds `image` `[B, 3, H, W]`, `text`, a list of T texts, and `true` `[B, T]`
    bool. A validation batch holds `true` `[B, P]` for the prompts instead of texts: the validation
    step scores its images by `prompts`, whose texts are encoded once per set of weights.

    Logged are `train_loss` in each step and, as means over an epoch, `val_loss` and `val_found`:
    how many images have their true prompts, all of them, before all others.

    Args:
        model_kwargs: Arguments of `timm.create_model`, such as `img_size`.
        model_name: A name that `timm.create_model` knows, of a vision transformer.
        dim: Dimensions of the space that images and texts are embedded in.
        text_width: Width of the text transformer.
        text_depth: Its number of blocks.
        prompts: What is looked for in validation; by default every color of every kind of garment.
        lr: Learning rate at its peak.
        weight_decay: Weight decay of the weight matrices.
        warmup_fraction: Share of all steps in which the learning rate rises linearly, 0 to 1.
    """

    def __init__(
        self,
        model_kwargs: dict[str, Any],
        model_name: str = "vit_tiny_patch16_224",
        dim: int = 64,
        text_width: int = 64,
        text_depth: int = 2,
        prompts: Sequence[str] = CLASS_PROMPTS,
        lr: float = 2e-3,
        weight_decay: float = 0.1,
        warmup_fraction: float = 0.05,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.tokenizer = WordTokenizer(vocabulary(), _CONTEXT)
        model = ImageTextModel(
            model_name,
            model_kwargs,
            self.tokenizer.vocab_size,
            _CONTEXT,
            dim,
            text_width,
            text_depth,
        )
        self.prompts = text_prompts(model, self.tokenizer, prompts)
        self.lr, self.weight_decay = lr, weight_decay
        self.warmup_fraction = warmup_fraction

    @property
    def model(self) -> ImageTextModel:
        """The model that is trained."""
        model = self.prompts.model
        assert isinstance(model, ImageTextModel)
        return model

    def forward(self, images: Tensor) -> Tensor:
        """Return how well prompts fit images `[B, 3, H, W]`, logits `[B, P]` of a softmax."""
        scores: Tensor = self.prompts(images)
        return scores

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the loss of a batch, `pair_loss` and `alikeness`, and log it as `train_loss`."""
        ids = self.tokenizer(batch["text"]).to(self.device)
        images, texts = self.model(batch["image"], ids)
        scores = self.model.logit_scale.exp() * images @ texts.T
        loss = pair_loss(scores, batch["true"]) + _APART * alikeness(texts, batch["true"])
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch["image"]))
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log `val_loss` and `val_found`."""
        self._evaluate("val", batch)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log `test_loss` and `test_found`."""
        self._evaluate("test", batch)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW and a schedule that is advanced after every step."""
        groups = param_groups_weight_decay(self.model, self.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=(0.9, 0.98))
        steps = int(self.trainer.estimated_stepping_batches)
        return with_warmup(optimizer, steps, self.warmup_fraction)

    def _evaluate(self, stage: str, batch: dict[str, Tensor]) -> None:
        scores, true = self(batch["image"]), batch["true"]
        found, count = all_found(scores, true).float().mean(), len(true)
        aims = true / true.sum(1, keepdim=True)
        loss = F.cross_entropy(scores, aims)
        self.log(f"{stage}_loss", loss, batch_size=count, sync_dist=True)
        self.log(f"{stage}_found", found, batch_size=count, sync_dist=True, prog_bar=True)


def pair_loss(scores: Tensor, true: Tensor) -> Tensor:
    """Return the contrastive loss of images and texts of which several may belong together.

    The cross entropy of each image's softmax over texts, whose aim is shared by the texts that are
    true of it, plus that of each text's softmax over images (Khosla et al. 2020).

    Args:
        scores: `[B, T]`.
        true: Which texts are true, bool `[B, T]`. Images without a true text, and texts without an
            image, are only what others are told from.
    """
    aims = true.to(scores.dtype)
    of_images = F.cross_entropy(scores, aims / aims.sum(1, keepdim=True).clamp_min(1))
    of_texts = F.cross_entropy(scores.T, (aims / aims.sum(0).clamp_min(1)).T)
    return of_images + of_texts


def alikeness(texts: Tensor, true: Tensor) -> Tensor:
    """Return the mean squared cosine of texts that are true of no image together.

    Without it "a red bag" is embedded as the sum of what is red and what is a bag, and a scene of a
    red bag and a blue boot, the sum of both, is not told from one of a blue bag and a red boot.

    Args:
        texts: Embeddings of length one, `[T, D]`.
        true: Which texts are true of which images, bool `[B, T]`.
    """
    together = true.float().T @ true.float() > 0
    apart = ~(together | torch.eye(len(texts), dtype=torch.bool, device=texts.device))
    return (texts @ texts.T)[apart].square().mean()


def all_found(scores: Tensor, true: Tensor) -> Tensor:
    """Return of which images all true texts have higher scores than all others, bool `[B]`.

    Args:
        scores: `[B, T]`.
        true: Which texts are true, bool `[B, T]`.
    """
    lowest = scores.masked_fill(~true, float("inf")).amin(1)
    return lowest > scores.masked_fill(true, float("-inf")).amax(1)
