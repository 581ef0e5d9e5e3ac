"""The model of images and texts: what it is trained on, and what of it is explained."""

from pathlib import Path

import lightning as L
import pytest
import torch

from libragrad_lightning import explain
from libragrad_lightning.callbacks import LibraGradAudit
from libragrad_lightning.cli import LibraGradCLI
from libragrad_lightning.demo import TextMatcher, TwoGarments, prompted_garments
from libragrad_lightning.demo.conv_stem import ConvStem
from libragrad_lightning.demo.image_text import ImageTextModel
from libragrad_lightning.demo.text_matcher import alikeness, all_found, pair_loss
from libragrad_lightning.metrics.functional import segmentation_average_precision

CONFIG = Path(__file__).parents[2] / "configs" / "clip.yaml"
TINY = {
    "img_size": 48,
    "patch_size": 8,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "class_token": False,
    "global_pool": "avg",
}


def small_data(**kwargs):
    return TwoGarments(batch_size=8, steps_per_epoch=2, num_val=10, num_test=10, **kwargs)


def matcher(**kwargs):
    torch.manual_seed(0)
    return TextMatcher(TINY, dim=12, text_width=16, text_depth=1, **kwargs)


def trainer(**kwargs):
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **kwargs,
    )


def test_the_loss_shares_the_aim_among_true_pairs():
    scores = torch.randn(3, 4, dtype=torch.double)
    true = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]]).bool()
    by_image = [-scores.log_softmax(1)[i][true[i]].mean() for i in range(3)]
    by_text = [-scores.log_softmax(0)[:, t][true[:, t]].mean() for t in range(3)]
    by_text += [torch.zeros((), dtype=torch.double)]  # The last text is true of no image.
    expected = torch.stack(by_image).mean() + torch.stack(by_text).mean()
    torch.testing.assert_close(pair_loss(scores, true), expected)


def test_texts_are_alike_by_those_that_never_hold_together():
    texts = torch.nn.functional.normalize(torch.randn(4, 3), dim=-1)
    true = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 0]]).bool()
    pairs = [(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]  # The first two are true of one image.
    expected = torch.stack([(texts[i] @ texts[j]) ** 2 for i, j in pairs]).mean()
    torch.testing.assert_close(alikeness(texts, true), expected)


def test_pieces_get_the_positions_of_one_of_the_pieces_of_a_whole():
    torch.manual_seed(0)
    stem = ConvStem(img_size=16, patch_size=4, embed_dim=6)
    torch.nn.init.zeros_(stem.proj[-1].weight)
    torch.nn.init.zeros_(stem.proj[-1].bias)
    whole = stem(torch.randn(1, 3, 16, 16))[0].T.unflatten(1, (4, 4))
    torch.testing.assert_close(whole, stem.positions)
    quarters = [whole[:, r : r + 2, c : c + 2] for r in (0, 2) for c in (0, 2)]
    seen = set()
    for _ in range(40):
        piece = stem(torch.randn(1, 3, 8, 8))[0].T.unflatten(1, (2, 2))
        (which,) = [i for i, q in enumerate(quarters) if torch.equal(piece, q)]
        seen.add(which)
    assert seen == {0, 1, 2, 3}


def test_all_true_prompts_are_found_or_they_are_not():
    scores = torch.tensor([[3.0, 2.0, 1.0], [3.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    true = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    assert all_found(scores, true).tolist() == [True, False, True]
    assert not all_found(torch.ones(1, 2), torch.tensor([[True, False]]))  # are alike


def test_a_fit_changes_both_encoders_in_close_ups_and_in_scenes_and_logs_what_it_finds():
    model = matcher(lr=0.01)
    before = {name: p.detach().clone() for name, p in model.model.named_parameters()}
    fit = trainer(max_epochs=2)
    fit.fit(model, small_data(close_up_epochs=1))
    assert {"train_loss", "val_loss", "val_found"} <= set(fit.callback_metrics)
    changed = {n for n, p in model.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == set(before)
    groups = model.optimizers(use_pl_optimizer=False).param_groups
    assert {group["betas"] for group in groups} == {(0.9, 0.98)}
    fit.test(model, small_data(), verbose=False)
    assert set(fit.callback_metrics) == {"test_loss", "test_found"}


def test_validation_scores_are_those_of_training_for_the_same_texts():
    model, data = matcher().eval(), small_data()
    data.setup("validate")
    batch = next(iter(data.val_dataloader()))
    ids = model.tokenizer(data.class_names)
    embedded, texts = model.model(batch["image"], ids)
    expected = model.model.logit_scale.exp() * embedded @ texts.T
    torch.testing.assert_close(model(batch["image"]), expected)
    assert 0 < float(expected.abs().max()) <= 5


def test_padding_and_other_texts_change_no_text():
    model = ImageTextModel("vit_tiny_patch16_224", TINY, vocabulary=9, context=7).eval()
    ids = torch.tensor([[3, 4, 1, 0, 0], [5, 6, 7, 8, 1]])
    both = model.encode_text(ids)
    torch.testing.assert_close(model.encode_text(ids[:1, :3]), both[:1])
    torch.testing.assert_close(model.encode_text(ids[1:]), both[1:])


def test_every_scene_is_asked_for_both_of_its_garments():
    data = small_data()
    data.setup("validate")
    batch = next(iter(data.val_dataloader()))
    samples = prompted_garments(batch)
    assert torch.equal(samples.pixels[0::2], batch["image"])
    assert torch.equal(samples.pixels[1::2], batch["image"])
    for start, label, mask in ((0, "label", "mask"), (1, "other_label", "other_mask")):
        labels, masks = samples.labels[start::2], samples.masks[start::2]
        assert torch.equal(labels, batch[label])
        rows = torch.arange(len(labels))
        assert torch.equal(masks[rows, labels], batch[mask])
        assert torch.equal(masks.flatten(2).any(2), batch["true"])


def test_the_audit_explains_every_prompt_with_the_mask_of_its_garment(tmp_path):
    audit = LibraGradAudit(
        max_samples=6, target="label", unpack=prompted_garments, metrics=["segmentation_ap"]
    )
    model, data = matcher(), small_data()
    trainer(max_epochs=1, callbacks=[audit], default_root_dir=tmp_path).fit(model, data)
    (record,) = audit.history
    assert record.samples == 6
    samples = prompted_garments(next(iter(data.val_dataloader())))[slice(0, 6)]
    explanation = explain(model.eval(), samples.pixels, target=samples.labels, task="multiclass")
    assert explanation.residuals.abs().max() < 1e-4
    masks = samples.masks[torch.arange(6), samples.labels]
    expected = segmentation_average_precision(explanation.heatmap((48, 48)), masks).mean()
    assert record.values["segmentation_ap/libra"] == pytest.approx(expected.item(), abs=1e-6)


def test_the_configuration_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli = LibraGradCLI(
        args=[
            "fit",
            f"--config={CONFIG}",
            "--trainer.accelerator=cpu",
            "--trainer.fast_dev_run=true",
            "--data.init_args.num_val=6",
            "--data.init_args.batch_size=4",
        ],
        save_config_callback=None,
    )
    assert isinstance(cli.model, TextMatcher)
    audit = next(c for c in cli.trainer.callbacks if isinstance(c, LibraGradAudit))
    (record,) = audit.history
    assert record.values["completeness_error/libra"] < 1e-4
