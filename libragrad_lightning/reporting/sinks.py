"""Where what is no scalar goes: pictures, tables and texts, through whatever loggers there are.

Every logger that takes pictures has its sink here; without any, files are written beside the logs.
None of the loggers' packages is needed: Lightning's own logger classes stand for them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.loggers import (
    CometLogger,
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)
from torch import Tensor

from libragrad_lightning.both_lightnings import in_both
from libragrad_lightning.heatmaps.panel import to_pil
from libragrad_lightning.reporting.board_pictures import add_picture
from libragrad_lightning.tables import TableRows

_FAST = 2
"""Three times as fast as the usual level of PNG, for files that are a little larger."""
_UNSAFE = re.compile(r"[^-/.\w]")
"""Characters that file systems may not like in a name."""


class Sink(Protocol):
    """Takes pictures, tables and texts under a name such as ``audit/image_000``, step by step."""

    def write_images(self, images: Mapping[str, Tensor], step: int) -> None:
        """Write pictures `[3, H, W]`, uint8, or floating point in [0, 1], by name."""

    def write_table(self, name: str, table: TableRows, step: int) -> None:
        """Write a table."""

    def write_text(self, name: str, markdown: str, step: int) -> None:
        """Write a text in Markdown."""


@dataclass(frozen=True)
class TensorBoardSink:
    """Writes to TensorBoard; tables become Markdown texts, and photographs JPEG.

    Attributes:
        logger: A `TensorBoardLogger`.
    """

    logger: Any

    def write_images(self, images: Mapping[str, Tensor], step: int) -> None:
        """Write pictures; their tags are the names, so that the slider is the step."""
        writer = self.logger.experiment
        for name, image in images.items():
            add_picture(writer, name, image, step)

    def write_table(self, name: str, table: TableRows, step: int) -> None:
        """Write a table as a text."""
        self.write_text(name, table.markdown(), step)

    def write_text(self, name: str, markdown: str, step: int) -> None:
        """Write a text."""
        writer = self.logger.experiment
        writer.add_text(name, markdown, step)


@dataclass(frozen=True)
class WandbSink:
    """Writes to Weights & Biases.

    Attributes:
        logger: A `WandbLogger`.
    """

    logger: Any

    def write_images(self, images: Mapping[str, Tensor], step: int) -> None:
        """Write pictures, all at once, since W&B counts every call as a step of its own."""
        import wandb  # pyright: ignore[reportMissingImports]  (comes with the user's logger)

        # Not as tensors: W&B would stretch their contrast.
        pictures = {name: wandb.Image(to_pil(image)) for name, image in images.items()}
        self.logger.log_metrics(pictures, step)

    def write_table(self, name: str, table: TableRows, step: int) -> None:
        """Write a table."""
        data = [list(row) for row in table.rows]
        self.logger.log_table(key=name, columns=list(table.columns), data=data, step=step)

    def write_text(self, name: str, markdown: str, step: int) -> None:
        """Write a text as a table of one cell."""
        self.logger.log_text(key=name, columns=["text"], data=[[markdown]], step=step)


@dataclass(frozen=True)
class MLFlowSink:
    """Writes to MLflow: pictures as image series, tables and texts as artifacts.

    Attributes:
        logger: An `MLFlowLogger`.
    """

    logger: Any

    def write_images(self, images: Mapping[str, Tensor], step: int) -> None:
        """Write pictures; their series are the names."""
        client, run = self.logger.experiment, self.logger.run_id
        for name, image in images.items():
            client.log_image(run, to_pil(image), key=name, step=step)

    def write_table(self, name: str, table: TableRows, step: int) -> None:
        """Write a table as a CSV artifact."""
        client, run = self.logger.experiment, self.logger.run_id
        client.log_text(run, table.csv(), f"{name}/{step:08d}.csv")

    def write_text(self, name: str, markdown: str, step: int) -> None:
        """Write a text as a Markdown artifact."""
        client, run = self.logger.experiment, self.logger.run_id
        client.log_text(run, markdown, f"{name}/{step:08d}.md")


@dataclass(frozen=True)
class CometSink:
    """Writes to Comet.

    Attributes:
        logger: A `CometLogger`.
    """

    logger: Any

    def write_images(self, images: Mapping[str, Tensor], step: int) -> None:
        """Write pictures."""
        experiment = self.logger.experiment
        for name, image in images.items():
            experiment.log_image(to_pil(image), name=name, step=step)

    def write_table(self, name: str, table: TableRows, step: int) -> None:
        """Write a table as a CSV asset; Comet's tables have no step, so their name says it."""
        rows, experiment = [list(row) for row in table.rows], self.logger.experiment
        experiment.log_table(
            f"{name}/{step:08d}.csv", tabular_data=rows, headers=list(table.columns)
        )

    def write_text(self, name: str, markdown: str, step: int) -> None:
        """Write a text."""
        experiment = self.logger.experiment
        experiment.log_text(markdown, step=step, metadata={"name": name})


@dataclass(frozen=True)
class FileSink:
    """Writes PNG, CSV and Markdown files, ``<directory>/<name>/<step>.<suffix>``.

    Attributes:
        directory: Where to write, a path or an fsspec URL; made if it is not there.
    """

    directory: str

    def write_images(self, images: Mapping[str, Tensor], step: int) -> None:
        """Write PNG files."""
        for name, image in images.items():
            content = io.BytesIO()
            to_pil(image).save(content, "png", compress_level=_FAST)
            self._write(name, step, "png", content.getvalue())

    def write_table(self, name: str, table: TableRows, step: int) -> None:
        """Write a CSV file."""
        self._write(name, step, "csv", table.csv().encode())

    def write_text(self, name: str, markdown: str, step: int) -> None:
        """Write a Markdown file."""
        self._write(name, step, "md", markdown.encode())

    def _write(self, name: str, step: int, suffix: str, content: bytes) -> None:
        files = get_filesystem(self.directory)
        folder = f"{self.directory}/{_UNSAFE.sub('_', name)}"
        files.makedirs(folder, exist_ok=True)
        files.pipe_file(f"{folder}/{step:08d}.{suffix}", content)


def trainer_sinks(trainer: pl.Trainer) -> list[Sink]:
    """Return a sink for every logger of a Trainer that has one.

    A `CSVLogger` gets files in its folder. If no logger has a sink, or there is none, files go to
    the folder of the first logger, or else to `default_root_dir`. There are no sinks in processes
    but the first, and none in `fast_dev_run`, which leaves nothing behind.
    """
    if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return []
    found = [sink for logger in trainer.loggers if (sink := _sink(logger)) is not None]
    return found or [FileSink(_log_folder(trainer))]


def write_images(trainer: pl.Trainer, images: Mapping[str, Tensor]) -> None:
    """Write pictures `[3, H, W]`, by name, to all sinks of a Trainer."""
    for sink in trainer_sinks(trainer) if images else ():
        sink.write_images(images, logger_step(trainer))


def write_page(trainer: pl.Trainer, name: str, html: str, json: str) -> None:
    """Write a page and its JSON to the run's folder, as ``<name>.html`` and ``<name>.json``.

    Files, whatever loggers there are; nothing in `fast_dev_run` and in processes but the first.
    """
    if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        folder = _log_folder(trainer)
        files = get_filesystem(folder)
        files.makedirs(folder, exist_ok=True)
        for suffix, content in (("html", html), ("json", json)):
            files.pipe_file(f"{folder}/{_UNSAFE.sub('_', name)}.{suffix}", content.encode())


def logger_step(trainer: pl.Trainer) -> int:
    """Return the step under which Lightning logs scalars now.

    Pictures and tables of the same audit have to stand at the same place. With several optimizers
    it counts batches, where `trainer.global_step` counts their steps.
    """
    step: int = trainer.fit_loop.epoch_loop._batches_that_stepped
    return step


def unwritable_folder(trainer: pl.Trainer) -> str | None:
    """Return the folder for files, if files are to be written and cannot be.

    Makes the folder otherwise.
    """
    for sink in trainer_sinks(trainer):
        if isinstance(sink, FileSink):
            try:
                get_filesystem(sink.directory).makedirs(sink.directory, exist_ok=True)
            except OSError:
                return sink.directory
    return None


def _sink(logger: Logger) -> Sink | None:
    if isinstance(logger, in_both(CSVLogger)):
        return FileSink(logger.log_dir)
    kinds: Sequence[tuple[type[Logger], type[Any]]] = (
        (TensorBoardLogger, TensorBoardSink),
        (WandbLogger, WandbSink),
        (MLFlowLogger, MLFlowSink),
        (CometLogger, CometSink),
    )
    return next((sink(logger) for kind, sink in kinds if isinstance(logger, in_both(kind))), None)


def _log_folder(trainer: pl.Trainer) -> str:
    """Return the folder in which `ModelCheckpoint` makes its own; asks no other process."""
    for logger in trainer.loggers:
        if logger.save_dir is not None:
            version = logger.version
            run = version if isinstance(version, str) else f"version_{version}"
            return str(Path(logger.save_dir) / str(logger.name) / run)
    return trainer.default_root_dir
