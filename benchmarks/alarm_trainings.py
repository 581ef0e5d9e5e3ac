"""Trains with and without a planted shortcut, and keeps what each audit found."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning.pytorch as pl
import yaml
from tqdm import tqdm

from libragrad_lightning.callbacks import LibraGradAudit
from libragrad_lightning.demo import ImageClassifier, ShortcutGarments
from libragrad_lightning.demo.shortcuts import Shortcut

CONFIG = Path(__file__).parents[1] / "configs" / "shortcut.yaml"
METRICS = ("energy_inside", "segmentation_ap", "pointing_game")
RULES = ("libra", "plain")
MARK_SIZE = 6
"""Height and width of a mark, pixels."""


@dataclass(frozen=True)
class Training:
    """What is trained.

    Attributes:
        shortcut: Kind of the planted shortcut.
        strength: Its opacity; 0 for a training without a shortcut.
        seed: Of the weights, the order of images, and the training images.
    """

    shortcut: Shortcut
    strength: float
    seed: int

    @property
    def is_planted(self) -> bool:
        """Whether there is a shortcut."""
        return self.strength > 0


@dataclass(frozen=True)
class Length:
    """How long all trainings are.

    Attributes:
        steps: Optimizer steps.
        every: Optimizer steps from one audit to the next.
        images: Training images.
        val: Validation images in each of the two loaders.
        probes: Images of an audit.
    """

    steps: int = 800
    every: int = 50
    images: int = 16000
    val: int = 500
    probes: int = 128


@dataclass(frozen=True)
class Audit:
    """What one validation found.

    Attributes:
        step: The optimizer steps before it.
        accuracy: On validation images with the shortcut.
        clean_accuracy: On the same images without it.
        qualities: Metrics of the explanations, by names such as ``energy_inside/libra``.
    """

    step: int
    accuracy: float
    clean_accuracy: float
    qualities: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """What a training gave.

    Attributes:
        training: What was trained.
        length: How long.
        audits: In the order of steps.
        cpu_seconds: CPU time of the process.
    """

    training: Training
    length: Length
    audits: tuple[Audit, ...]
    cpu_seconds: float


class Recorder(pl.Callback):
    """Keeps what each validation of a fit logged."""

    def __init__(self) -> None:
        self.audits: list[Audit] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the metrics, unless the Trainer only tries whether validation works."""
        if trainer.sanity_checking:
            return
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        accuracies = (logged[f"val_acc/dataloader_idx_{number}"] for number in range(2))
        names = [f"{metric}/{rules}" for metric in METRICS for rules in RULES]
        qualities = {name: logged[f"audit/{name}"] for name in names}
        self.audits.append(Audit(trainer.global_step, *accuracies, qualities))


def train(training: Training, length: Length) -> Outcome:
    """Train the model of the configuration, and audit it."""
    begin = time.process_time()
    pl.seed_everything(training.seed, verbose=False)
    recipe = yaml.safe_load(CONFIG.read_text())["model"]["init_args"]
    audit = LibraGradAudit(
        length.probes, rules=RULES, metrics=METRICS, num_images=0, print_summary=False
    )
    recorder = Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with TemporaryDirectory() as folder:
            trainer = _trainer(length, [audit, recorder], folder)
            trainer.fit(ImageClassifier(**recipe), data(training, length))
    spent = time.process_time() - begin
    return Outcome(training, length, tuple(recorder.audits), spent)


def data(training: Training, length: Length) -> ShortcutGarments:
    """Return the data module of a training."""
    return ShortcutGarments(
        training.shortcut,
        training.strength,
        MARK_SIZE,
        num_train=length.images,
        num_val=length.val,
        seed=training.seed,
    )


def _trainer(length: Length, callbacks: list[pl.Callback], folder: str) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=length.steps,
        max_epochs=-1,
        val_check_interval=length.every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def train_all(plan: Sequence[Training], length: Length, file: Path) -> list[Outcome]:
    """Train what the file does not hold yet, and add it there.

    Args:
        plan: What is trained.
        length: How long.
        file: JSON, a line for each training; a line that was cut off is trained again.

    Returns:
        Outcomes in the order of the plan.
    """
    _drop_half_line(file)
    found = {o.training: o for o in outcomes(file) if o.length == length}
    for training in tqdm(plan, desc="Trainings", unit="training"):
        if training not in found:
            found[training] = train(training, length)
            with file.open("a") as lines:
                lines.write(json.dumps(asdict(found[training])) + "\n")
                lines.flush()
                os.fsync(lines.fileno())
    return [found[training] for training in plan]


def outcomes(file: Path) -> list[Outcome]:
    """Read the outcomes that a file holds."""
    return [_outcome(json.loads(line)) for line in file.read_text().splitlines()]


def _drop_half_line(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = file.read_text() if file.exists() else ""
    file.write_text(text[: text.rfind("\n") + 1])


def _outcome(of: dict[str, Any]) -> Outcome:
    audits = tuple(Audit(**audit) for audit in of["audits"])
    return Outcome(Training(**of["training"]), Length(**of["length"]), audits, of["cpu_seconds"])
