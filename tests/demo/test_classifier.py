"""The example classifier: what it logs, what it accepts, how its learning rate runs."""

from itertools import pairwise

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LightningCLI
from torch.utils.data import DataLoader, TensorDataset

from libragrad_lightning import explain
from libragrad_lightning.demo import GarmentsOnTextures
from libragrad_lightning.demo.classifier import (
    ImageClassifier,
    classification_loss,
    images_and_labels,
    warmup_cosine,
)
from libragrad_lightning.demo.conv_stem import ConvStem

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}


def quiet_trainer(**kwargs):
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **kwargs,
    )


def small_data():
    return GarmentsOnTextures(batch_size=16, num_train=64, num_val=40, num_test=40)


def test_fast_dev_run_goes_through_training_validation_and_test():
    trainer = quiet_trainer(fast_dev_run=True)
    model = ImageClassifier(model_kwargs=TINY)
    before = model.model.head.weight.detach().clone()
    trainer.fit(model, small_data())
    assert {"train_loss", "val_loss", "val_acc"} <= set(trainer.callback_metrics)
    assert not torch.equal(model.model.head.weight, before)
    trainer.test(model, small_data(), verbose=False)
    assert set(trainer.callback_metrics) == {"test_loss", "test_acc"}


def test_logged_validation_values_are_those_of_the_whole_set():
    data, model = small_data(), ImageClassifier(model_kwargs=TINY)
    logged = quiet_trainer().validate(model, data, verbose=False)[0]
    batches = list(data.val_dataloader())
    labels = torch.cat([batch["label"] for batch in batches])
    with torch.no_grad():
        logits = model.eval()(torch.cat([batch["image"] for batch in batches]))
    assert logged["val_acc"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert logged["val_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)


def test_training_is_deterministic_after_seed_everything():
    def weights():
        L.seed_everything(5, verbose=False)
        model = ImageClassifier(model_kwargs=TINY)
        quiet_trainer(max_epochs=1).fit(model, small_data())
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    assert torch.equal(weights(), weights())


def test_pairs_are_accepted_like_mappings():
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    assert images_and_labels({"image": images, "label": labels, "mask": None}) == (images, labels)
    assert images_and_labels((images, labels)) == (images, labels)
    loader = DataLoader(TensorDataset(images, labels), batch_size=4)
    trainer = quiet_trainer(max_epochs=1)
    model = ImageClassifier(model_kwargs=TINY)
    trainer.fit(model, loader, loader)
    probabilities = torch.cat(trainer.predict(model, loader))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(8))


def test_learning_rate_rises_then_falls_to_zero():
    factors = [warmup_cosine(step, 10, 110) for step in range(111)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1
    assert factors[60] == pytest.approx(0.5)
    assert factors[110] == pytest.approx(0)
    assert all(later <= earlier for earlier, later in pairwise(factors[9:]))


@pytest.mark.parametrize("warmup_fraction", [0.0, 0.25])
def test_the_trainer_follows_the_schedule(warmup_fraction):
    rates = []

    class RecordRate(L.Callback):
        def on_train_batch_start(self, trainer, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    model = ImageClassifier(model_kwargs=TINY, lr=0.01, warmup_fraction=warmup_fraction)
    trainer = quiet_trainer(max_epochs=2, callbacks=[RecordRate()])
    trainer.fit(model, small_data())
    warmup = int(8 * warmup_fraction)
    assert rates == pytest.approx([0.01 * warmup_cosine(step, warmup, 8) for step in range(8)])


def test_arguments_of_the_model_may_be_left_out():
    assert ImageClassifier("test_vit", num_classes=5)(torch.zeros(1, 3, 160, 160)).shape == (1, 5)


def test_weight_decay_spares_biases_and_normalizations():
    model = ImageClassifier(model_kwargs=TINY, weight_decay=0.3)
    quiet_trainer(fast_dev_run=True).fit(model, small_data())
    groups = model.optimizers(use_pl_optimizer=False).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert {group["weight_decay"] for group in groups} == {0.0, 0.3}
    assert id(model.model.blocks[0].mlp.fc1.weight) in decayed
    assert id(model.model.blocks[0].mlp.fc1.bias) not in decayed
    assert id(model.model.norm.weight) not in decayed


def test_lightning_cli_builds_both_classes_from_their_arguments(monkeypatch):
    monkeypatch.setattr("sys.argv", ["cli"])
    cli = LightningCLI(
        ImageClassifier,
        GarmentsOnTextures,
        args={
            "model": {"model_kwargs": TINY, "num_classes": 4},
            "data": {"batch_size": 5, "num_val": 9},
            "trainer": {"accelerator": "cpu", "logger": False},
        },
        save_config_callback=None,
        run=False,
    )
    assert cli.model(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    cli.datamodule.setup("validate")
    assert [len(batch["label"]) for batch in cli.datamodule.val_dataloader()] == [5, 4]


def test_frozen_parameters_keep_their_values_and_the_head_has_a_learning_rate_of_its_own():
    kwargs = TINY | {"depth": 2}
    model = ImageClassifier(model_kwargs=kwargs, frozen=["patch_embed", "blocks.0"], head_lr=0.5)
    before = {name: p.detach().clone() for name, p in model.model.named_parameters()}
    quiet_trainer(max_epochs=1).fit(model, small_data())
    changed = {n for n, p in model.model.named_parameters() if not torch.equal(p, before[n])}
    kept = {n for n in before if n.startswith(("patch_embed.", "blocks.0."))}
    assert kept
    assert changed == set(before) - kept
    groups = model.optimizers().optimizer.param_groups
    rates = {id(p): group["initial_lr"] for group in groups for p in group["params"]}
    head = {id(p) for p in model.model.head.parameters()}
    assert {rate for p, rate in rates.items() if p in head} == {0.5}
    assert {rate for p, rate in rates.items() if p not in head} == {1e-3}


def test_a_name_that_no_parameter_has_is_refused():
    with pytest.raises(ValueError, match=r"named blocks.1; change frozen .* patch_embed, .*blocks"):
        ImageClassifier(model_kwargs=TINY, frozen=["blocks.1"])


def test_smoothed_labels_are_aims_between_the_classes():
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    aims = 0.8 * F.one_hot(labels, 3) + 0.2 / 3
    found = classification_loss(logits, labels, 0.2)
    torch.testing.assert_close(found, F.cross_entropy(logits, aims))
    one, true = logits[:, :1], labels.clamp(max=1)
    both = torch.cat([torch.zeros_like(one), one], 1)
    expected = F.cross_entropy(both, true, label_smoothing=0.2)
    torch.testing.assert_close(classification_loss(one, true, 0.2), expected)


def test_convolutions_embed_patches():
    pooled = {"class_token": False, "global_pool": "avg"}
    model = ImageClassifier(model_kwargs=TINY | pooled, stem="convolutions")
    assert isinstance(model.model.patch_embed, ConvStem)
    assert model.model.pos_embed is None
    images = torch.randn(2, 3, 32, 32)
    assert model(images).shape == (2, 10)
    explanation = explain(model.eval(), images)
    assert explanation.attribution.shape == (2, 4, 4)
    assert explanation.residuals.abs().max() < 1e-4
