"""What a Trainer must be for an audit to run: checked before anything else happens."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import (
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    Strategy,
)
from lightning.pytorch.utilities import CombinedLoader

from libragrad_lightning.monitoring.schedule import Schedule

_SHARDING: tuple[type[Strategy], ...] = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)


def check_trainer(trainer: pl.Trainer, stage: str) -> None:
    """Refuse what cannot be audited.

    Raises:
        MisconfigurationException: If the Trainer comes from another package, shards the weights,
            or will not validate.
    """
    if not isinstance(trainer, pl.Trainer):
        raise MisconfigurationException(
            f"LibraGradAudit is a callback of `lightning.pytorch`, but this Trainer comes from "
            f"`{type(trainer).__module__.partition('.')[0]}`; import `lightning.pytorch` in its "
            "place, for the LightningModule too."
        )
    if isinstance(trainer.strategy, _SHARDING):
        raise MisconfigurationException(
            f"LibraGradAudit cannot explain weights that {type(trainer.strategy).__name__} spreads "
            "over processes; pass `strategy='ddp'`, or explain the whole model after training with "
            "`libragrad_lightning.explain`."
        )
    if stage == "fit":
        _check_validates(trainer)


def check_start(seen: bool) -> None:
    """Refuse an audit at the start if the sanity check did not show the whole probe set.

    Raises:
        MisconfigurationException: If it did not.
    """
    if not seen:
        raise MisconfigurationException(
            "LibraGradAudit with `at_start=True` takes its probe set from the sanity check, which "
            "was too short for it; pass `Trainer(num_sanity_val_steps=-1)`, or a smaller "
            "`max_samples`."
        )


def check_fit(trainer: pl.Trainer, schedule: Schedule) -> None:
    """Refuse an audit at the start of a fit that has no place for it.

    Call it when the fit starts: before, it is not known whether it goes on from a checkpoint.

    Raises:
        MisconfigurationException: If there is no sanity check.
    """
    short = trainer.fast_dev_run or trainer.ckpt_path is not None  # type: ignore[attr-defined]
    if schedule.at_start and not short:
        check_start(trainer.num_sanity_val_steps > 0)


def _check_validates(trainer: pl.Trainer) -> None:
    if not trainer.enable_validation:
        raise MisconfigurationException(
            "LibraGradAudit explains validation images, but this Trainer will not validate: "
            "define `validation_step`, give `fit` a validation loader and leave "
            "`limit_val_batches` above 0."
        )


def probe_loader(trainer: pl.Trainer, loaders: Any, index: int) -> Any:
    """Return the loader of the probe set; None if a test has no such loader.

    Raises:
        MisconfigurationException: If a validation has none.
    """
    found = CombinedLoader(loaders, "sequential").flattened
    if index < len(found):
        return found[index]
    if trainer.state.fn == "test":
        return None
    raise MisconfigurationException(
        f"LibraGradAudit wants validation loader {index} of {len(found)}; pass a smaller "
        "`dataloader_idx` (they count from 0)."
    )
