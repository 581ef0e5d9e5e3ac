"""Offline runs of the loggers' own packages get everything; skipped where a package is missing."""

import os

import pytest
from audit_cases import Classifier, loader, quick_audit, trainer
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger


def fit(tmp_path, logger):
    run = trainer(tmp_path, [quick_audit(max_samples=16)], logger=logger)
    run.fit(Classifier(), loader(count=16), loader(count=16))
    return run


def written(folder, kind):
    return [path.relative_to(folder).as_posix() for path in folder.rglob(f"*.{kind}")]


def test_wandb_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setitem(os.environ, "WANDB_SILENT", "true")
    fit(tmp_path, WandbLogger(save_dir=tmp_path, offline=True, project="p"))
    wandb.finish()
    (media,) = tmp_path.glob("wandb/offline-run-*/files/media")
    pictures = written(media / "images" / "audit", "png")
    assert sum(name.startswith("curves") for name in pictures) == 2
    assert sum(name.startswith("image_000/class_") for name in pictures) == 2
    assert sum(name.startswith("strip_000/class_") for name in pictures) == 1
    tables = written(media / "table" / "audit", "table.json")
    for name in ("best_and_worst", "classes", "scores"):
        assert sum(table.startswith(f"{name}_") for table in tables) == 2


def test_mlflow_in_files(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setitem(os.environ, "MLFLOW_ALLOW_FILE_STORE", "true")
    fit(tmp_path, MLFlowLogger("audits", tracking_uri=f"file:{tmp_path}/mlflow"))
    (artifacts,) = tmp_path.glob("mlflow/*/*/artifacts")
    pictures = written(artifacts / "images", "png")
    for name, count in (("curves", 2), ("image_000", 2), ("strip_000", 1)):
        assert sum(name in picture for picture in pictures) == count
    for name, kind in (("classes", "md"), ("best_and_worst", "md"), ("scores", "csv")):
        assert len(written(artifacts / "audit" / name, kind)) == 2
