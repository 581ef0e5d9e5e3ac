"""What a Trainer must be for an audit to run: checked before anything else happens."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DeepSpeedStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.utilities import CombinedLoader

from libragrad_lightning.both_lightnings import in_both
from libragrad_lightning.monitoring.schedule import Schedule


def check_trainer(trainer: pl.Trainer, stage: str) -> None:
    """Refuse what cannot be audited.

    Raises:
        MisconfigurationException: If the Trainer spreads the weights over processes in a way from
            which they cannot be gathered, or will not validate.
    """
    _check_strategy(trainer.strategy)
    if stage == "fit":
        _check_validates(trainer)


def _check_strategy(strategy: Strategy) -> None:
    if isinstance(strategy, in_both(DeepSpeedStrategy)) and strategy.zero_stage_3:
        raise MisconfigurationException(
            "LibraGradAudit cannot explain weights that stage 3 of DeepSpeed spreads over "
            "processes; pass `strategy='deepspeed_stage_2'`, `'fsdp'` or `ModelParallelStrategy`, "
            "which audits gather."
        )
    if isinstance(strategy, in_both(ModelParallelStrategy)) and _is_tensor_parallel(strategy):
        raise MisconfigurationException(
            "LibraGradAudit cannot explain a model that is spread over processes by tensor "
            "parallelism, as none of them computes the scores of an image alone; pass "
            "`ModelParallelStrategy(tensor_parallel_size=1)`, and spread it by `fully_shard`."
        )


def _is_tensor_parallel(strategy: ModelParallelStrategy) -> bool:
    return strategy.device_mesh["tensor_parallel"].size() > 1


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
