"""Coverage names what is unknown and where; the leak finder names where completeness is lost."""

import pytest
import timm
import torch
from torch import nn
from unknown_operation import CustomActivation

from libragrad_lightning.backward import LIBRA, PLAIN
from libragrad_lightning.diagnosis import coverage, explain_incompleteness

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


class HiddenConstant(nn.Module):
    def forward(self, x):
        return x + 1.5


class Branching(nn.Module):
    """Adds an exponential, at which the gradient stops, to the main path."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(24, 24)

    def forward(self, x):
        return self.inner(x) + x.exp()


def vit():
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **SMALL).eval().double()
    for p in model.parameters():
        p.data.normal_(0, 0.3)
    return model


def images(count=2):
    return torch.randn(count, 3, 32, 32, dtype=torch.float64)


def test_a_known_model_is_covered_and_its_places_are_named():
    report = coverage(vit(), images())
    uses = {use.operation: use for use in report.uses}
    assert not report.unknown
    assert uses["GeluBackward0"].places == ("blocks.0.mlp.act", "blocks.1.mlp.act")
    assert uses["NativeLayerNormBackward0"].count == 5
    assert uses["ConvolutionBackward0"].places == ("patch_embed.proj",)


def test_an_unknown_operation_is_named_with_its_place_and_what_to_do():
    model = vit()
    model.blocks[1].mlp.act = CustomActivation()
    report = coverage(model, images())
    (use,) = report.unknown
    assert (use.operation, use.count) == ("SwishBackward", 1)
    assert use.places == ("blocks.1.mlp.act",)
    assert "'SwishBackward': operation" in use.advice
    assert report.uses[0] is use
    assert "**unknown**" in report.markdown()
    assert report.table().row_count == len(report.uses)


def test_a_complete_model_has_no_leak():
    report = explain_incompleteness(vit(), images(), target=3)
    assert report.relative_error < 1e-12
    assert max(abs(leak.own) for leak in report.leaks) < 1e-12


@pytest.mark.parametrize("target", [-1, 5])
def test_a_logit_that_is_not_there_is_named(target):
    with pytest.raises(ValueError, match=rf"one of the model's \d+ logits .*but is {target}\."):
        explain_incompleteness(vit(), images(), target=target)


def test_plain_gradients_leak_in_norms_activations_and_attention_alone():
    report = explain_incompleteness(vit(), images(), rules=PLAIN)
    leaking = {leak.kind for leak in report.leaks if abs(leak.own) > 1e-9}
    assert leaking == {"LayerNorm", "GELU", "Attention"}
    total = sum(leak.own for leak in report.leaks)
    assert total == pytest.approx(report.logit - report.attributed, rel=1e-9)


def test_a_planted_leak_is_found_with_its_size():
    model = vit()
    model.blocks[0].mlp.act = CustomActivation()
    suspect = "SwishBackward (unknown)"
    report = explain_incompleteness(model, images())
    worst, second = report.leaks[:2]
    assert worst.path == "blocks.0.mlp.act"
    assert suspect in worst.suspects
    assert abs(second.own) < 1e-10
    assert worst.own == pytest.approx(report.logit - report.attributed, rel=1e-9)
    assert suspect in str([*report.table().columns[3].cells])


@pytest.mark.parametrize("planted", [Branching().double(), HiddenConstant()])
def test_values_that_are_added_count_as_biases_and_do_not_leak(planted):
    model = vit()
    model.blocks[0].drop_path1 = planted
    assert explain_incompleteness(model, images()).relative_error < 1e-12


@pytest.mark.parametrize("function", [coverage, explain_incompleteness])
def test_the_model_is_left_as_it_was(function):
    model = vit().train()
    model.blocks[0].requires_grad_(False)
    before = [
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
    ]
    function(model, images(1), rules=LIBRA)
    after = [
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
    ]
    assert before == after
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
