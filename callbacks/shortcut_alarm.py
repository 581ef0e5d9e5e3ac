"""`ShortcutAlarm`: says when accuracy rises while the explanations leave the object."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from libragrad_lightning.monitoring import AuditedAccuracy, Divergence, check_key, find_divergence
from libragrad_lightning.reporting import logger_step, trainer_sinks


class ShortcutAlarm(pl.Callback):
    """Warn, or stop the fit, when a model gets better for a reason outside the object.

    A model that learns a shortcut (a mark, a watermark, a background) gains accuracy on data that
    has the shortcut too, while its explanations leave the object. So this callback follows two
    logged metrics from audit to audit and raises the alarm at either of two signs:

    1. *Divergence*: each of the latest `patience` audits is more accurate by `min_rise`, and worse
       explained by `min_drop`, than each of some `patience` consecutive audits earlier in the fit.
    2. *Out of sight* (if `min_quality` is given): quality is below `min_quality` in the latest
       `patience` audits although accuracy is at least `min_accuracy`. This finds a shortcut that
       was learned before the first audit.

    Which quality? `energy_inside` (the share of positive attribution on the object) tells shortcuts
    apart best: a small mark may gather most of the attribution and yet hardly change the ranking of
    pixels, which is all that `segmentation_ap` sees. Both need masks. The sampling error of such a
    mean is its standard deviation over images by the root of their number, about 0.02 with 128
    images; `min_drop` should be some times that.

    It goes off once in a fit: with a warning, and a text ``shortcut_alarm`` in the loggers that
    take texts. Put it after `LibraGradAudit`, or before: the order does not matter. Only fits are
    watched, and the history of audits is part of the checkpoint.

    Args:
        accuracy: Key of the logged accuracy on validation data; higher is better. In distributed
            training, log it with `sync_dist=True`.
        quality: Key of the logged quality of the explanations; higher is better. A value that is
            the same as at the last validation counts as no new audit.
        min_rise: Least rise of accuracy for sign 1.
        min_drop: Least drop of quality for sign 1.
        patience: Consecutive audits that must agree.
        min_quality: Sign 2: least acceptable quality, or null for no such sign. At least that of a
            random map, which for `energy_inside` and average precision is the mean share of object
            pixels.
        min_accuracy: Audits with lower accuracy do not count for sign 2: a model that has not
            learned anything looks nowhere.
        action: ``warn``, or ``stop`` to warn and end the fit.

    Raises:
        MisconfigurationException: If an argument is out of range, or a metric is not logged.

    Example:
        >>> from libragrad_lightning.callbacks import LibraGradAudit, ShortcutAlarm
        >>> callbacks = [LibraGradAudit(), ShortcutAlarm(accuracy="val_acc", action="stop")]
    """

    def __init__(
        self,
        accuracy: str = "val_acc",
        quality: str = "audit/energy_inside/libra",
        min_rise: float = 0.05,
        min_drop: float = 0.1,
        patience: int = 2,
        min_quality: float | None = None,
        min_accuracy: float = 0.5,
        action: Literal["warn", "stop"] = "warn",
    ) -> None:
        super().__init__()
        if patience < 1:
            raise MisconfigurationException(
                f"ShortcutAlarm needs `patience` of at least 1 but got {patience}."
            )
        for name, value in (("min_rise", min_rise), ("min_drop", min_drop)):
            if not value > 0:
                raise MisconfigurationException(
                    f"ShortcutAlarm needs `{name}` above 0 but got {value}."
                )
        if action not in ("warn", "stop"):
            raise MisconfigurationException(
                f"ShortcutAlarm does not know the action {action!r}; `action` is 'warn' or 'stop'."
            )
        self.accuracy, self.quality = accuracy, quality
        self.min_rise, self.min_drop, self.patience = min_rise, min_drop, patience
        self.min_quality, self.min_accuracy = min_quality, min_accuracy
        self.action = action
        self.history: list[AuditedAccuracy] = []
        self.message: str | None = None

    @property
    def state_key(self) -> str:
        """One state for every pair of metrics, so that several alarms can share a Trainer."""
        return self._generate_state_key(accuracy=self.accuracy, quality=self.quality)

    def state_dict(self) -> dict[str, Any]:
        """Return the audits seen so far, and the message if the alarm went off."""
        return {"history": [asdict(audit) for audit in self.history], "message": self.message}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.history = [AuditedAccuracy(**audit) for audit in state_dict["history"]]
        self.message = state_dict["message"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget the last fit, and check that the explanations are measured."""
        if stage == "fit":
            check_key(trainer, self.quality, "quality")
            self.history, self.message = [], None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the metrics of a validation, if it was audited."""
        trying = trainer.sanity_checking or trainer.fast_dev_run  # type: ignore[attr-defined]
        if trying or trainer.state.fn != "fit":
            return
        self._see(trainer)
        news = self.judge() if self.message is None else None
        alarmed = trainer.strategy.reduce_boolean_decision(news is not None, all=False)
        if news is not None:
            self.message = news
            self._tell(trainer, news)
        if alarmed and self.action == "stop":
            trainer.should_stop = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say if there was nothing to judge by."""
        if not (self.history or trainer.fast_dev_run):  # type: ignore[attr-defined]
            rank_zero_warn(
                f"ShortcutAlarm saw no audit in this fit: `{self.quality}` was not logged; add "
                "`LibraGradAudit`, or change `quality`."
            )

    def judge(self) -> str | None:
        """Return what is wrong, in one sentence, or None if the audits so far show no shortcut."""
        found = find_divergence(self.history, self.patience, self.min_rise, self.min_drop)
        if found is not None:
            return self._divergence_sentence(found)
        latest = self.history[-self.patience :]
        if self.min_quality is None or len(latest) < self.patience:
            return None
        if any(a.quality >= self.min_quality or a.accuracy < self.min_accuracy for a in latest):
            return None
        return (
            f"ShortcutAlarm: `{self.accuracy}` is {latest[-1].accuracy:.3f} but `{self.quality}` "
            f"is {latest[-1].quality:.3f}, below {self.min_quality:g}, {_since(latest)}: the model "
            "seems to be right for a reason outside the object; look at the audit's pictures."
        )

    def _divergence_sentence(self, found: Divergence) -> str:
        before, now = found.before[-1], found.now[-1]
        return (
            f"ShortcutAlarm: since {_place(before)}, `{self.accuracy}` has risen from "
            f"{before.accuracy:.3f} to {now.accuracy:.3f} while `{self.quality}` has fallen from "
            f"{before.quality:.3f} to {now.quality:.3f}: the model seems to be right for a reason "
            "outside the object; look at the audit's pictures."
        )

    def _see(self, trainer: pl.Trainer) -> None:
        """Remember the metrics of a validation, if there is a new audit among them."""
        metrics = trainer.callback_metrics
        if self.accuracy not in metrics:
            raise _not_logged("accuracy", self.accuracy, metrics)
        if self.quality not in metrics:
            prefix = self.quality.partition("/")[0] + "/"
            if any(key.startswith(prefix) for key in metrics):
                raise _not_logged("quality", self.quality, metrics)
            return
        accuracy, quality = float(metrics[self.accuracy]), float(metrics[self.quality])
        seen = bool(self.history) and self.history[-1].quality == quality
        if not seen and math.isfinite(accuracy) and math.isfinite(quality):
            self.history.append(
                AuditedAccuracy(trainer.current_epoch, trainer.global_step, accuracy, quality)
            )

    def _tell(self, trainer: pl.Trainer, message: str) -> None:
        rank_zero_warn(message)
        if self.action == "stop":
            rank_zero_info("ShortcutAlarm stops the fit (`action='stop'`).")
        for sink in trainer_sinks(trainer):
            sink.write_text("shortcut_alarm", message, logger_step(trainer))


def _place(audit: AuditedAccuracy) -> str:
    return f"epoch {audit.epoch} (step {audit.step})"


def _since(latest: Sequence[AuditedAccuracy]) -> str:
    return "since " + _place(latest[0])


def _not_logged(argument: str, key: str, metrics: Mapping[str, Any]) -> MisconfigurationException:
    return MisconfigurationException(
        f"ShortcutAlarm watches `{key}`, which is not logged; set `{argument}` to one of "
        f"{sorted(metrics)}."
    )
