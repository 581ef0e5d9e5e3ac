"""`LibraGradAudit`: explains the same validation images at every validation, and measures it.

No `from __future__ import annotations` here: LightningCLI reads the types of the arguments.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from libragrad_lightning.callbacks.arguments import at_least, audit_settings
from libragrad_lightning.callbacks.coverage import checked_coverage
from libragrad_lightning.callbacks.measurement import Measurement
from libragrad_lightning.callbacks.module_reading import floating_dtype, read_module
from libragrad_lightning.callbacks.pictures import PictureSettings, draw_panels
from libragrad_lightning.callbacks.samples import (
    Samples,
    UnpackBatch,
    checked_samples,
    unpack_batch,
)
from libragrad_lightning.callbacks.summary import AuditRecord, print_summary
from libragrad_lightning.callbacks.tensorboard import announce_charts, log_coverage, log_panels
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from tqdm import tqdm

from libragrad_lightning.attribution import Method
from libragrad_lightning.backward import RuleSet
from libragrad_lightning.models import TokenModel, explanation_state
from libragrad_lightning.perturbation import LEVELS


class LibraGradAudit(pl.Callback):
    r"""Audit the explanations of a vision model during fit, validate and test.

    At every audit the same validation images (the probe set) are explained under each rule set, by
    default with plain gradients and with LibraGrad; the explanations are measured, and drawn. The
    training run is not changed by a bit: the audit runs in a validation hook, never accumulates a
    gradient, and puts back every flag, buffer and random stream.

    **Logged metrics** (`<name>/<metric>/<rules>`; `test_<name>/...` in test):

    - ``mif_accuracy_drop``: 1 - accuracy, deleting the most influential patches first; higher is
      better. The paper's "MIF accuracy".
    - ``lif_accuracy``: accuracy, deleting the least influential patches first; higher is better.
    - ``mif_aopc`` (higher is better), ``lif_aopc`` (lower is better): drop of the target's
      probability.
    - ``srg``: accuracy under LIF less accuracy under MIF; higher is better.
    - ``segmentation_ap``: average precision of the map against the object mask, where the batch has
      masks; higher is better.
    - ``completeness_error``: mean \|FullGrad sum - logit\|; ``relative_completeness_error``: the
      same over \|logit\|; lower is better, zero at rounding level under ``libra``.

    Args:
        every_n_epochs: Audit in epochs 0, n, 2n, ... of a fit; validate and test always audit.
            Monitors see the latest values in between.
        max_samples: Size of the probe set: the first images of the validation loader, over all
            processes together.
        rules: Rule sets to compare, by name (``plain``, ``libra``, ``attn_lrp``, ``ali_lrp``,
            ``decompx``) or as objects.
        method: Attribution method, by name (``fullgrad_plus``, ``fullgrad``, ``genatt``,
            ``input_x_gradient``, ... all in `attribution.METHODS`) or a function.
        target: Which class is explained, and scored under deletion: ``predicted``, ``label``, or a
            class index.
        reward: What is differentiated: ``log_odds``, ``probability`` or ``logit``. The first two
            rank patches alike; ``probability`` underflows when the model is certain.
        metrics: Names of the metrics to compute; all by default.
        levels: Fractions of patches to delete.
        batch_size: Images per explanation.
        backbone: Path of the token backbone in the LightningModule, such as ``model.backbone``;
            found if omitted.
        unpack: Function from your validation batch to `Samples`; by default tuples and dicts are
            understood.
        dataloader_idx: Which validation loader the probe set comes from.
        num_images: How many probe images are drawn at every audit.
        image_size: The longer side of one picture in a panel, in pixels.
        image_mean: Channel means of the images' normalisation, to undo it in pictures. By default
            images are shown as they are, or stretched to [0, 1] if they are outside of it.
        image_std: Channel standard deviations of the images' normalisation.
        class_names: Class names for captions; by default `class_names` of the datamodule or module.
        unknown: What to do when the model has an operation without a gradient rule: ``error``,
            ``warn`` or ``ignore``.
        name: First part of the log keys; change it to use several audits in one Trainer.
        print_summary: Print a table of all audits at the end of a fit, validate or test.

    Raises:
        MisconfigurationException: If an argument cannot work, the Trainer has no validation, or
            pictures are wanted and there is no logger.

    Example:
        >>> from libragrad_lightning.callbacks import LibraGradAudit
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[LibraGradAudit()], logger=False, max_epochs=1)
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        max_samples: int = 64,
        rules: Sequence[str | RuleSet] = ("plain", "libra"),
        method: str | Method = "fullgrad_plus",
        target: Literal["predicted", "label"] | int = "predicted",
        reward: str = "log_odds",
        metrics: Sequence[str] | None = None,
        levels: Sequence[float] = LEVELS,
        batch_size: int = 32,
        backbone: str | None = None,
        unpack: Callable[[Any], Samples] | None = None,
        dataloader_idx: int = 0,
        num_images: int = 8,
        image_size: int = 224,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
        unknown: Literal["error", "warn", "ignore"] = "error",
        name: str = "audit",
        print_summary: bool = True,
    ) -> None:
        super().__init__()
        self.every_n_epochs = at_least(1, every_n_epochs, "every_n_epochs")
        self.max_samples = at_least(1, max_samples, "max_samples")
        self.num_images = at_least(0, num_images, "num_images")
        self.image_size = at_least(32, image_size, "image_size")
        self.settings = audit_settings(
            rules=rules,
            method=method,
            target=target,
            reward=reward,
            metrics=metrics,
            levels=levels,
            batch_size=batch_size,
            unknown=unknown,
        )
        self.image_mean, self.image_std = image_mean, image_std
        self.class_names = class_names
        self.backbone = backbone
        self.unpack: UnpackBatch = unpack_batch if unpack is None else unpack
        self.dataloader_idx = dataloader_idx
        self.name = name
        self.print_summary = print_summary
        self.history: list[AuditRecord] = []
        self._probe: Samples | None = None
        self._covered = False
        self._pending = False
        self._measurement: Measurement | None = None
        self._panels: list[Tensor] = []
        self._seconds = 0.0

    @property
    def state_key(self) -> str:
        """One state for every name, so that several audits can share a Trainer."""
        return self._generate_state_key(name=self.name)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that the audit can run, before anything else does."""
        self._probe = None
        self._covered = False
        if stage == "fit" and not trainer.enable_validation:
            raise MisconfigurationException(
                "LibraGradAudit explains validation images, but this Trainer will not validate: "
                "define `validation_step`, give `fit` a validation loader and leave "
                "`limit_val_batches` above 0."
            )
        if self.num_images and not trainer.loggers:
            raise MisconfigurationException(
                "LibraGradAudit draws pictures, but the Trainer has no logger: pass "
                "`Trainer(logger=True)` (TensorBoard), or `num_images=0` to audit without pictures."
            )
        if stage == "fit":
            self.history = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let TensorBoard put the rule sets side by side."""
        announce_charts(trainer, self.name, self.settings)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Decide whether this validation is audited."""
        fitting = trainer.state.fn == "fit"
        due = trainer.current_epoch % self.every_n_epochs == 0
        self._begin((due or not fitting) and not trainer.sanity_checking)

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Audit every test."""
        self._begin(True)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the probe set, and audit as soon as it is complete.

        The audit runs here and not at the end of the epoch because callbacks that average weights
        swap them there: what is explained are the weights that are being validated.
        """
        if trainer.sanity_checking and dataloader_idx == self.dataloader_idx and batch_idx == 0:
            # A model that cannot be read, or a batch that cannot, shows before training.
            images = self._unpacked(batch).images
            self._read(trainer, pl_module, images.to(pl_module.device, floating_dtype(pl_module)))
        batches = trainer.num_val_batches
        self._see(trainer, pl_module, batch, batch_idx, dataloader_idx, batches)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the probe set of the test, and audit as soon as it is complete."""
        batches = trainer.num_test_batches
        self._see(trainer, pl_module, batch, batch_idx, dataloader_idx, batches)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the audit, here where checkpoints and early stopping can monitor it."""
        if not trainer.sanity_checking:
            self._report(trainer, pl_module, self.name)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the audit of a test."""
        self._report(trainer, pl_module, f"test_{self.name}")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the audits of the fit."""
        self._show(trainer, self.history)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the audit of a validation outside of a fit."""
        if trainer.state.fn == "validate":
            self._show(trainer, self.history[-1:])

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the audit of a test."""
        self._show(trainer, self.history[-1:])

    def _begin(self, pending: bool) -> None:
        self._pending = pending
        self._measurement = None
        self._panels = []
        self._seconds = 0.0

    def _see(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
        batches: Sequence[int | float],
    ) -> None:
        if not self._pending or self._measurement or dataloader_idx != self.dataloader_idx:
            return
        quota = math.ceil(self.max_samples / trainer.world_size)
        full = self._probe is not None and batch_idx == 0
        if not full:
            self._collect(batch, quota)
        last = batch_idx + 1 == batches[dataloader_idx]
        if full or last or len(self._probe or ()) == quota:
            self._audit(trainer, pl_module)

    def _collect(self, batch: Any, quota: int) -> None:
        # Lightning may validate in inference mode, whose tensors could not be differentiated.
        with torch.inference_mode(False):
            new = self._unpacked(batch).stored()
            probe = new if self._probe is None else self._probe.joined(new)
            self._probe = probe[slice(0, quota)]

    def _audit(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        start = time.perf_counter()
        self._measurement = Measurement(self.settings, pl_module.device)
        if self._probe is not None:
            with explanation_state(pl_module):
                self._explain(trainer, pl_module, self._measurement, self._probe)
        self._seconds = time.perf_counter() - start

    def _explain(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        measurement: Measurement,
        probe: Samples,
    ) -> None:
        pictures = self._picture_settings(trainer, pl_module)
        samples = probe.to(torch.device("cpu"), floating_dtype(pl_module))
        chunks = measurement.explain(
            self._read(trainer, pl_module, samples.images[:1].to(pl_module.device)),
            samples,
            lambda r: self._progress(trainer, r),
        )
        start = 0
        for explanations in chunks:
            count = min(self.settings.batch_size, len(samples) - start)
            wanted = max(0, min(count, pictures.count - start))
            if wanted:
                drawn = samples[slice(start, start + wanted)]
                self._panels += draw_panels(drawn, explanations, pictures)
            start += count

    def _report(self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str) -> None:
        if self._pending and self._measurement is None:
            self._audit(trainer, pl_module)
        if self._measurement is None:
            return
        measured = self._measurement.values()
        values = {key: value for key, value in measured.items() if not math.isnan(value)}
        self.history.append(
            AuditRecord(trainer.current_epoch, trainer.global_step, values, self._seconds)
        )
        self.log_dict(_keys(name, values), sync_dist=trainer.world_size > 1)
        log_panels(trainer, name, self._panels)
        self._begin(False)

    def _show(self, trainer: pl.Trainer, history: Sequence[AuditRecord]) -> None:
        if self.print_summary and trainer.is_global_zero:
            print_summary(history, [rules.name for rules in self.settings.rules])

    def _progress(self, trainer: pl.Trainer, chunks: Iterable[int]) -> Iterable[int]:
        quiet = trainer.progress_bar_callback is None or not trainer.is_global_zero
        bar: Iterable[int] = tqdm(chunks, self.name, leave=False, delay=2, disable=quiet)
        return bar

    def _unpacked(self, batch: Any) -> Samples:
        if self.unpack is unpack_batch:
            return unpack_batch(batch)
        samples = self.unpack(batch)
        if not isinstance(samples, Samples):
            raise MisconfigurationException(
                f"`unpack` must return `Samples(images, labels, masks)` but returned "
                f"{type(samples).__name__}."
            )
        return checked_samples(samples)

    def _read(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, images: Tensor
    ) -> TokenModel:
        """Read the model, and the first time report which of its operations have a rule."""
        model = read_module(pl_module, images, self.backbone)
        if not self._covered:
            reports = checked_coverage(pl_module, model, images, self.settings)
            log_coverage(trainer, self.name, reports)
            self._covered = True
        return model

    def _picture_settings(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> PictureSettings:
        names = self.class_names
        for owner in (getattr(trainer, "datamodule", None), pl_module):
            names = names or getattr(owner, "class_names", None)
        shown = any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers)
        return PictureSettings(
            count=self.num_images if shown and trainer.is_global_zero else 0,
            size=self.image_size,
            mean=None if self.image_mean is None else tuple(self.image_mean),
            std=None if self.image_std is None else tuple(self.image_std),
            class_names=None if names is None else tuple(names),
        )


def _keys(name: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}/{key}": value for key, value in values.items()}
