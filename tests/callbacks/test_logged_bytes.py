"""What an audit of the demo writes to TensorBoard, and what its page takes."""

from pathlib import Path

import lightning as L
import pytest
from audit_cases import trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from libragrad_lightning.callbacks import LibraGradAudit
from libragrad_lightning.demo import GarmentsOnTextures, ImageClassifier

MODEL = {"img_size": 32, "patch_size": 4, "embed_dim": 64, "depth": 2, "num_heads": 4}


@pytest.mark.parametrize(("num_images", "megabytes"), [(8, 1.0), (16, 1.2)])
@pytest.mark.rotating
def test_an_audit_takes_about_a_megabyte_at_most(tmp_path, num_images, megabytes):
    L.seed_everything(0)
    audits = LibraGradAudit(num_images=num_images, print_summary=False)
    run = trainer(
        tmp_path, [audits], logger=TensorBoardLogger(tmp_path), limit_train_batches=20, max_epochs=3
    )
    run.fit(ImageClassifier("vit_tiny_patch16_224", MODEL), GarmentsOnTextures(num_workers=0))
    folder = Path(run.logger.log_dir)
    sizes = [path.stat().st_size for path in folder.rglob("events.out.tfevents.*")]
    # Strips are written once, and few audits have to pay for them here.
    assert sum(sizes) < 3e6 * megabytes
    assert (folder / "audit.html").stat().st_size < 1.5e6 * num_images / 8
    tags = EventAccumulator(str(folder)).Reload().Tags()["images"]
    assert sorted(tags) == sorted(
        ["audit/curves", "audit/worst_segmentation_ap", "audit/best_segmentation_ap"]
        + [t for t in tags if t.startswith("audit/image_")]
        + [t.replace("image", "strip") for t in tags if t.startswith("audit/image_")]
    )
    assert len(tags) == 3 + 2 * num_images
    assert "audit/image_000/T-shirt" in tags
