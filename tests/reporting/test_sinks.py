"""Pictures, tables and texts reach each logger through the calls that its package understands."""

import ast
import csv
import inspect
import sys
from pathlib import Path
from types import SimpleNamespace

import fsspec
import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import (
    CometLogger,
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from libragrad_lightning.audit import AuditRecord
from libragrad_lightning.reporting import (
    FileSink,
    TableRows,
    TensorBoardSink,
    history_table,
    sinks,
    trainer_sinks,
    write_history,
)

PICTURE = torch.randint(0, 256, (3, 20, 30), generator=torch.Generator().manual_seed(0)).byte()
PIXELS = PICTURE.permute(1, 2, 0).numpy()
OTHER = 255 - PICTURE
TABLE = TableRows(("epoch", "srg/libra", "note"), ((0, 0.123456, "a|b, c"), (1, None, "")))


class RecordedCalls:
    def __init__(self):
        self.calls = []

    def record(self, name, arguments):
        arguments.pop("self")
        self.calls.append((name, arguments))


class RecordingWandb(WandbLogger):
    """The methods of `WandbLogger`, which needs wandb to be made."""

    def __init__(self):
        self.recorded = RecordedCalls()

    def log_metrics(self, metrics, step=None):
        self.recorded.record("log_metrics", locals())

    def log_table(self, key, columns=None, data=None, dataframe=None, step=None):
        self.recorded.record("log_table", locals())

    def log_text(self, key, columns=None, data=None, dataframe=None, step=None):
        self.recorded.record("log_text", locals())


class MlflowClient(RecordedCalls):
    """The signatures of `mlflow.tracking.MlflowClient`."""

    def log_image(
        self,
        run_id,
        image,
        artifact_file=None,
        key=None,
        step=None,
        timestamp=None,
        synchronous=None,
    ):
        self.record("log_image", locals())

    def log_text(self, run_id, text, artifact_file):
        self.record("log_text", locals())


class RecordingMLFlow(MLFlowLogger):
    def __init__(self):
        self.recorded = MlflowClient()

    experiment = property(lambda self: self.recorded)
    run_id = "run"


class CometExperiment(RecordedCalls):
    """The signatures of `comet_ml.CometExperiment`."""

    def log_image(
        self,
        image_data,
        name=None,
        overwrite=False,
        image_format="png",
        image_scale=1.0,
        image_shape=None,
        image_colormap=None,
        image_minmax=None,
        image_channels="last",
        copy_to_tmp=True,
        step=None,
        annotations=None,
        metadata=None,
    ):
        self.record("log_image", locals())

    def log_table(self, filename, tabular_data=None, headers=False, **format_kwargs):
        self.record("log_table", locals())

    def log_text(self, text, step=None, metadata=None):
        self.record("log_text", locals())


class RecordingComet(CometLogger):
    def __init__(self):
        self.recorded = CometExperiment()

    experiment = property(lambda self: self.recorded)


class Scalars(Logger):
    """A logger that takes numbers only."""

    name, version = "mine", 3

    def __init__(self, save_dir):
        self._save_dir = save_dir

    save_dir = property(lambda self: self._save_dir)

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params):
        pass


class Named(Scalars):
    version = "of monday"


def trainer(tmp_path, logger=False, **kwargs):
    return L.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=logger,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **kwargs,
    )


def stub(*loggers, rank_zero=True):
    return SimpleNamespace(
        loggers=loggers, is_global_zero=rank_zero, fast_dev_run=False, default_root_dir="root"
    )


def write_all(sink, step=7):
    sink.write_images({"audit/image_000": PICTURE, "audit/image_001": OTHER}, step)
    sink.write_table("audit/history", TABLE, step)
    sink.write_text("audit/coverage/libra", "# Covered", step)


def recorded(logger):
    (sink,) = trainer_sinks(stub(logger))
    write_all(sink)
    return [(name, {k: v for k, v in call.items() if v}) for name, call in logger.recorded.calls]


def test_the_stand_in_for_wandb_has_its_signatures():
    for name in ("log_metrics", "log_table", "log_text"):
        real = inspect.signature(getattr(WandbLogger, name)).parameters.values()
        ours = inspect.signature(getattr(RecordingWandb, name)).parameters.values()
        assert [(p.name, p.kind, p.default) for p in ours] == [
            (p.name, p.kind, p.default) for p in real
        ]


def test_wandb_gets_all_pictures_at_once(monkeypatch):
    # `wandb.Image` takes PIL images; a package that is not needed stands for the other.
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Image=lambda picture: (picture,)))
    (images, table, text) = recorded(RecordingWandb())
    assert (images[0], images[1]["step"]) == ("log_metrics", 7)
    ((first,), (second,)) = images[1]["metrics"].values()
    assert list(images[1]["metrics"]) == ["audit/image_000", "audit/image_001"]
    assert np.array_equal(np.array(first), PIXELS)
    assert np.array_equal(np.array(second), 255 - PIXELS)
    assert table == (
        "log_table",
        {
            "key": "audit/history",
            "columns": ["epoch", "srg/libra", "note"],
            "data": [[0, 0.123456, "a|b, c"], [1, None, ""]],
            "step": 7,
        },
    )
    expected = {"key": "audit/coverage/libra", "columns": ["text"], "data": [["# Covered"]]}
    assert text == ("log_text", expected | {"step": 7})


def test_mlflow():
    (image, other, table, text) = recorded(RecordingMLFlow())
    assert other[1]["key"] == "audit/image_001"
    assert np.array_equal(np.array(image[1].pop("image")), PIXELS)
    assert image == ("log_image", {"run_id": "run", "key": "audit/image_000", "step": 7})
    assert table[1]["artifact_file"] == "audit/history/00000007.csv"
    assert list(csv.reader(table[1]["text"].splitlines()))[1] == ["0", "0.123456", "a|b, c"]
    assert text[1]["artifact_file"] == "audit/coverage/libra/00000007.md"
    assert text[1]["text"] == "# Covered"


def test_comet():
    (image, other, table, text) = recorded(RecordingComet())
    assert other[1]["name"] == "audit/image_001"
    picture = np.array(image[1]["image_data"])
    assert np.array_equal(picture, PIXELS)
    assert (image[1]["name"], image[1]["step"]) == ("audit/image_000", 7)
    assert table[1]["filename"] == "audit/history/00000007.csv"
    assert table[1]["tabular_data"] == [[0, 0.123456, "a|b, c"], [1, None, ""]]
    assert table[1]["headers"] == ["epoch", "srg/libra", "note"]
    assert text[1] == {
        "text": "# Covered",
        "step": 7,
        "metadata": {"name": "audit/coverage/libra"},
    }


def test_tensorboard(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    (sink,) = trainer_sinks(trainer(tmp_path, logger))
    assert sink == TensorBoardSink(logger)
    write_all(sink)
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir).Reload()
    (event,) = events.Images("audit/image_000")
    assert (event.step, event.height, event.width) == (7, 20, 30)
    assert [event.step for event in events.Images("audit/image_001")] == [7]
    (table,) = events.Tensors("audit/history/text_summary")
    assert table.tensor_proto.string_val[0].decode().splitlines() == [
        "| epoch | srg/libra | note |",
        "| --- | --- | --- |",
        "| 0 | 0.1235 | a\\|b, c |",
        "| 1 |  |  |",
    ]
    assert events.Tensors("audit/coverage/libra/text_summary")[0].step == 7


@pytest.mark.parametrize("kind", ["csv", "none", "scalars", "named"])
def test_files_where_no_logger_takes_pictures(tmp_path, kind):
    loggers = {
        "csv": CSVLogger(tmp_path / "logs", name="run"),
        "none": False,
        "scalars": Scalars(tmp_path / "logs"),
        "named": Named(tmp_path / "logs"),
    }
    folder = {
        "csv": "logs/run/version_0",
        "none": "",
        "scalars": "logs/mine/version_3",
        "named": "logs/mine/of monday",
    }[kind]
    (sink,) = trainer_sinks(trainer(tmp_path, loggers[kind]))
    write_all(sink)
    write_all(sink, 8)
    audit = tmp_path / folder / "audit"
    assert sorted(p.name for p in (audit / "image_000").iterdir()) == [
        "00000007.png",
        "00000008.png",
    ]
    for name, pixels in (("image_000", PIXELS), ("image_001", 255 - PIXELS)):
        assert np.array_equal(np.array(Image.open(audit / name / "00000007.png")), pixels)
    with (audit / "history" / "00000007.csv").open() as file:
        assert list(csv.reader(file)) == [
            ["epoch", "srg/libra", "note"],
            ["0", "0.123456", "a|b, c"],
            ["1", "", ""],
        ]
    assert (audit / "coverage" / "libra" / "00000007.md").read_text() == "# Covered"


def test_every_logger_gets_its_own_and_files_are_the_last_resort(tmp_path):
    wandb, comet = RecordingWandb(), RecordingComet()
    found = trainer_sinks(stub(Scalars(tmp_path), wandb, CSVLogger(tmp_path), comet))
    assert [type(sink).__name__ for sink in found] == ["WandbSink", "FileSink", "CometSink"]


def test_only_the_first_process_writes(tmp_path):
    assert trainer_sinks(stub(RecordingWandb(), rank_zero=False)) == []
    assert trainer_sinks(trainer(tmp_path, fast_dev_run=True)) == []


def test_floating_pictures_and_odd_names(tmp_path):
    FileSink(str(tmp_path)).write_images({"my audit:2/50%": PICTURE / 255}, 0)
    saved = Image.open(tmp_path / "my_audit_2" / "50_" / "00000000.png")
    assert np.array_equal(np.array(saved), PIXELS)


def test_remote_folders():
    FileSink("memory://bucket/logs").write_text("audit/text", "hello", 1)
    assert fsspec.filesystem("memory").cat("/bucket/logs/audit/text/00000001.md") == b"hello"


def test_no_package_of_a_logger_is_imported_with_the_module():
    body = ast.parse(Path(sinks.__file__).read_text()).body
    froms = {node.module for node in body if isinstance(node, ast.ImportFrom)}
    plain = {alias.name for node in body if isinstance(node, ast.Import) for alias in node.names}
    tops = {name.partition(".")[0] for name in froms | plain} - sys.stdlib_module_names
    assert tops == {"lightning", "torch", "libragrad_lightning"}


def test_a_table_is_text_with_plain_line_ends():
    assert TABLE.csv() == 'epoch,srg/libra,note\n0,0.123456,"a|b, c"\n1,,\n'


def test_an_empty_history_is_not_written(tmp_path):
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(_batches_that_stepped=3))
    run = stub(CSVLogger(tmp_path))
    run.fit_loop = loop
    write_history(run, "audit", [])
    assert not list(tmp_path.rglob("*.csv"))
    write_history(run, "audit", [AuditRecord(0, 5, {"a/x": 1.0}, 0.5, 8)])
    (table,) = tmp_path.rglob("audit/history/00000003.csv")
    assert table.read_text().startswith("epoch,step,")


def test_a_history_with_gaps():
    history = [
        AuditRecord(0, 5, {"a/x": 1.0}, 0.5, 8, "initial", "zero_tokens"),
        AuditRecord(1, 10, {"b/x": 2.0}, 0.25, 8),
    ]
    table = history_table(history)
    assert table.columns[-2:] == ("a/x", "b/x")
    assert table.columns[:-2] == ("epoch", "step", "weights", "deletion", "samples", "seconds")
    assert [row[:-2] for row in table.rows] == [
        (0, 5, "initial", "zero_tokens", 8, 0.5),
        (1, 10, "current", "", 8, 0.25),
    ]
    assert [row[-2:] for row in table.rows] == [(1.0, None), (None, 2.0)]
