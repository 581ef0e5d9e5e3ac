"""MURA: its lists, its labels, one logit."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from PIL import Image
from torch.utils.data import RandomSampler, SequentialSampler, default_collate

from libragrad_lightning.data import MuraDataModule
from libragrad_lightning.demo import ImageClassifier

LINES = [
    "MURA-v1.1/{}/XR_WRIST/patient00001/study1_positive/image1.png",
    "MURA-v1.1/{}/XR_WRIST/patient00001/study1_positive/image2.png",
    "MURA-v1.1/{}/XR_ELBOW/patient00002/study1_negative/image1.png",
    "MURA-v1.1/{}/XR_ELBOW/patient00003/study2_negative/image1.png",
]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "renamed"
    for split in ("train", "valid"):
        lines = [line.format(split) for line in (LINES if split == "valid" else LINES[:3])]
        for line in lines:
            path = folder / line.partition("/")[2]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (30, 40), 7).save(path)
        (folder / f"{split}_image_paths.csv").write_text("\n".join(lines) + "\n")
    return folder


def module(root, **kwargs):
    return MuraDataModule(str(root), "test_vit", image_size=32, **kwargs)


def labels(dataset):
    return [int(sample["label"]) for sample in dataset]


def test_labels_say_whether_the_study_is_abnormal(root):
    assert labels(module(root).build("train")) == [1, 1, 0]
    assert labels(module(root).build("val")) == labels(module(root).build("test")) == [1, 1, 0, 0]
    assert labels(module(root, evaluate_train=True).build("val")) == [1, 1, 0]
    assert sum(labels(module(root, max_images=4).build("val"))) == 2
    assert module(root).build("val")[0]["image"].shape == (3, 32, 32)


def test_training_images_come_in_random_order_and_others_in_theirs(root):
    data = module(root, batch_size=3, num_workers=2)
    data.setup("fit")
    data.setup("test")
    train = data.train_dataloader()
    assert (train.batch_size, train.num_workers) == (3, 2)
    assert isinstance(train.sampler, RandomSampler)
    for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        assert isinstance(loader.sampler, SequentialSampler)


@pytest.mark.parametrize(("flip", "training"), [(True, True), (True, False), (False, True)])
def test_half_of_the_training_images_are_mirrored_if_that_is_wanted(root, flip, training):
    data = module(root, flip=flip, num_workers=1)
    data.trainer = SimpleNamespace(training=training)
    images = torch.randn(40, 3, 4, 4)
    found = data.on_after_batch_transfer({"image": images}, 0)["image"]
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(found, images, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(found, images, strict=True)]
    assert sum(mirrored) + sum(kept) == 40
    assert (0 < sum(mirrored) < 40) if flip and training else all(kept)


def test_a_head_with_one_logit_is_trained_and_scored(root):
    model = ImageClassifier("test_vit", {"img_size": 32}, num_classes=1)
    before = model.model.head.weight.detach().clone()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(accelerator="cpu", max_epochs=2, enable_model_summary=False, **quiet)
    data = module(root, batch_size=3)
    trainer.fit(model, data)
    assert not torch.equal(model.model.head.weight, before)
    (logged,) = trainer.validate(model, data, verbose=False)
    batch = default_collate(list(data.build("val")))
    with torch.no_grad():
        probability = model.eval()(batch["image"])[:, 0].double().sigmoid()
    label = batch["label"]
    chosen = torch.where(label == 1, probability, 1 - probability)
    assert logged["val_loss"] == pytest.approx(-chosen.log().mean().item(), rel=1e-5)
    assert logged["val_acc"] == pytest.approx((chosen > 0.5).double().mean().item())
    predicted = torch.cat(trainer.predict(model, data))
    torch.testing.assert_close(predicted[:, 0].double(), probability, rtol=1e-5, atol=1e-6)


def test_what_is_missing_is_named(root):
    (root / "valid/XR_WRIST/patient00001/study1_positive/image2.png").unlink()
    with pytest.raises(ValueError, match=r"image2.png is missing"):
        labels(module(root).build("val"))
    (root / "train_image_paths.csv").write_text("MURA-v1.1/train/XR_WRIST/image1.png\n")
    with pytest.raises(ValueError, match=r"Line 1 of .* names no study1_positive"):
        module(root).build("train")
    (root / "train_image_paths.csv").unlink()
    with pytest.raises(ValueError, match=r"no .*train_image_paths.csv; set root to the folder"):
        module(root).build("train")
