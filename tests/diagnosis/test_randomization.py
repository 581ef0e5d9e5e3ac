"""Weights are shuffled from the head down, maps compared, and the model is left as it was."""

import io
import random

import numpy as np
import pytest
import timm
import torch
from rich.console import Console
from scipy.stats import spearmanr
from torch import nn

from libragrad_lightning import explain
from libragrad_lightning.diagnosis import randomization_check
from libragrad_lightning.diagnosis.stages import stages_of
from libragrad_lightning.metrics.functional import map_structural_similarity
from libragrad_lightning.models import explanation_state, read_token_model

SMALL = {"img_size": 56, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
IMAGES = torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))
STAGES = ["head", "blocks.1", "blocks.0", "stem"]


@pytest.fixture
def model():
    torch.manual_seed(1)
    found = timm.create_model("vit_tiny_patch16_224", num_classes=5, **SMALL).eval()
    for p in found.parameters():
        p.data.normal_(0, 0.3)
    return found


def by_stage(report, rules):
    return {found.stage: found for found in report.stages if found.rules == rules}


def lengths_of_z0(captured):
    return captured.features[0].norm(dim=2)


def test_maps_that_do_not_read_the_head_stay_as_they_are(model):
    rollout = by_stage(
        randomization_check(model, IMAGES, method="attention_rollout", rules=["libra"]), "libra"
    )
    assert list(rollout) == STAGES
    torch.testing.assert_close(rollout["head"].rank_correlations, torch.ones(3).double())
    torch.testing.assert_close(rollout["head"].structural_similarities, torch.ones(3).double())
    assert rollout["blocks.1"].rank_correlation.upper < 0.95
    stem_alone = randomization_check(model, IMAGES, method=lengths_of_z0, rules=["plain"])
    same = [float(found.rank_correlation.lower) > 0.999 for found in stem_alone.stages]
    assert same == [True, True, True, False]


def test_maps_of_what_was_learned_change(model):
    report = randomization_check(model, IMAGES)
    assert [(found.stage, found.rules) for found in report.stages] == [
        (stage, rules) for stage in STAGES for rules in ("plain", "libra")
    ]
    assert all(found.rank_correlation.upper < 0.5 for found in report.stages)
    assert all(found.structural_similarity.upper < 0.9 for found in report.stages)


def test_it_compares_the_maps_of_two_models_by_scipys_correlation(model):
    """The head's weights are permuted by hand, with the class that the intact model predicts."""
    before = explain(model, IMAGES, method="gradcam_plus", rules="plain")
    found = randomization_check(model, IMAGES, method="gradcam_plus", rules=["plain"], seed=3)
    generator = torch.Generator().manual_seed(3)
    for name in ("norm.weight", "norm.bias", "head.weight", "head.bias"):
        weight = model.get_parameter(name)
        order = torch.randperm(weight.numel(), generator=generator)
        weight.data = weight.data.flatten()[order].view_as(weight)
    after = explain(model, IMAGES, target=before.target, method="gradcam_plus", rules="plain")
    maps = zip(before.attribution, after.attribution, strict=True)
    expected = [spearmanr(a.flatten(), b.flatten()).statistic for a, b in maps]
    head = found.stages[0]
    torch.testing.assert_close(head.rank_correlations, torch.tensor(expected).double())
    structural = map_structural_similarity(after.attribution, before.attribution)
    torch.testing.assert_close(head.structural_similarities, structural)
    assert head.rank_correlation.median == pytest.approx(np.median(expected))
    assert head.rank_correlation.lower == pytest.approx(np.quantile(expected, 0.25))
    assert head.rank_correlation.upper == pytest.approx(np.quantile(expected, 0.75))


def everything(model):
    """What a user could find changed, as values that can be compared."""
    tensors = {name: t.clone() for name, t in model.state_dict().items()}
    flags = [(p.requires_grad, p.grad is None, p._version) for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    streams = (torch.get_rng_state(), str(np.random.get_state()), random.getstate())
    return tensors, (flags, modes, hooks, streams[1:], torch.is_grad_enabled()), streams[0]


def assert_untouched(model, before):
    after = everything(model)
    assert after[0].keys() == before[0].keys()
    assert all(torch.equal(after[0][name], value) for name, value in before[0].items())
    assert after[1] == before[1]
    assert torch.equal(after[2], before[2])


def counted(module, *_):
    module.seen.add_(1)


@pytest.mark.parametrize("fails_at", [None, 1, 4])
def test_the_model_is_left_as_it_was_also_by_a_failure(model, fails_at):
    model.train()
    model.head.weight.requires_grad_(False)
    model.register_buffer("seen", torch.zeros(()))
    model.register_forward_hook(counted)
    calls, weights = [], []

    def method(captured):
        calls.append(len(calls))
        weights.append(model.blocks[1].mlp.fc1.weight.detach().clone())
        if len(calls) - 1 == fails_at:
            raise RuntimeError("no map")
        return captured.features[0].norm(dim=2)

    pending = model(IMAGES).sum()  # its graph has saved the weights
    before = everything(model)
    if fails_at is None:
        randomization_check(model, IMAGES, method=method, rules=["libra"])
        assert len(calls) == 5
        assert [torch.equal(w, weights[0]) for w in weights] == [True, True, False, False, False]
    else:
        with pytest.raises(RuntimeError, match="no map"):
            randomization_check(model, IMAGES, method=method, rules=["libra"])
    assert_untouched(model, before)
    pending.backward()
    assert model.blocks[1].mlp.fc1.weight.grad.isfinite().all()


def test_a_seed_gives_the_same_shuffle_and_another_one_another(model):
    first, again, other = (
        randomization_check(model, IMAGES, rules=["libra"], seed=seed) for seed in (0, 0, 1)
    )
    for one, same, different in zip(first.stages, again.stages, other.stages, strict=True):
        assert torch.equal(one.rank_correlations, same.rank_correlations)
        assert not torch.equal(one.rank_correlations, different.rank_correlations)


class Projected(nn.Module):
    """Holds weights of its own, which its head and its stem use, and one that both use."""

    def __init__(self, vit):
        super().__init__()
        self.vit = vit
        self.projection = nn.Parameter(torch.randn(24, 4) / 5)
        self.scale = nn.Parameter(torch.ones(3, 1, 1))
        self.unused = nn.Parameter(torch.ones(2))
        self.temperature = nn.Parameter(torch.tensor(2.0))

    def forward(self, images):
        pooled = self.vit.forward_head(
            self.vit.forward_features(images * self.scale * self.temperature), pre_logits=True
        )
        return self.temperature * pooled @ self.projection


def test_weights_belong_to_the_stage_that_uses_them_first(model):
    whole = Projected(model)
    reading = read_token_model(whole, IMAGES)
    with explanation_state(whole):
        stages = stages_of(whole, reading, IMAGES[:1])
    names = {id(p): name for name, p in whole.named_parameters()}
    found = {stage.name: {names[id(w)] for w in stage.weights} for stage in stages}
    assert list(found) == ["head", "vit.blocks.1", "vit.blocks.0", "stem"]
    assert found["head"] == {"projection", "vit.norm.weight", "vit.norm.bias"}
    assert found["stem"] == {
        *("scale", "temperature", "vit.cls_token", "vit.pos_embed"),
        *("vit.patch_embed.proj.weight", "vit.patch_embed.proj.bias"),
    }
    for number in (0, 1):
        path = f"vit.blocks.{number}"
        assert found[path] == {n for n in names.values() if n.startswith(path)}


def test_maps_without_a_similarity_are_left_out_of_the_median(model):
    def blank_at_first(captured):
        values = captured.features[0].norm(dim=2)
        values[0] = 1.0
        return values

    report = randomization_check(model, IMAGES, method=blank_at_first, rules=["plain"])
    for found in report.stages:
        assert found.rank_correlations.isnan().tolist() == [True, False, False]
        middle = found.rank_correlations[1:].mean()
        assert found.rank_correlation.median == pytest.approx(float(middle))
    text = io.StringIO()
    Console(file=text, width=120).print(report.table())
    assert "blocks.1" in text.getvalue()
    assert str(report.stages[0].rank_correlation) in text.getvalue()
