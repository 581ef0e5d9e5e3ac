"""What attributions are added up for: the logit, and the combination of logits of the reward."""

import pytest
import timm
import torch

from libragrad_lightning import explain
from libragrad_lightning.attribution import log_odds, logit, probability
from libragrad_lightning.attribution.explaining import explain_tokens
from libragrad_lightning.attribution.rewards import output
from libragrad_lightning.backward import LibraGradError
from libragrad_lightning.models import explanation_state, read_token_model

IMAGES = torch.randn(3, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
PASSES = []
"""One entry for each backward pass; a list of the module's own would be put back."""


class Counted(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits):
        return logits.clone()

    @staticmethod
    def backward(ctx, gradient):
        PASSES.append(len(gradient))
        return gradient


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    net = timm.create_model("vit_tiny_patch16_224", num_classes=4, **SMALL).eval().double()
    for p in net.parameters():
        p.data.normal_(0, 0.2)
    return net


def ours(logits, target):
    """A reward of one's own, without a name."""
    return logits.gather(1, target[:, None])[:, 0] ** 2 - logits.sin().sum(1)


@pytest.mark.parametrize("reward", [log_odds, probability, ours])
def test_the_linear_reward_is_the_slope_of_the_reward_along_the_logits(model, reward):
    found = explain(model, IMAGES, reward=reward, target=1)
    factor = torch.ones(len(IMAGES), 1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(reward(factor * found.logits, found.target).sum(), factor)
    torch.testing.assert_close(found.linear_reward, slope[:, 0])
    assert found.residuals.shape == (2, 3)
    assert found.residuals.abs().max() < 1e-12


def test_sums_of_the_reward_are_combinations_of_those_of_the_logits(model):
    found = explain(model, IMAGES, rules="plain")
    by_class = [
        explain(model, IMAGES, rules="plain", reward="logit", target=c).reward_sums
        for c in range(4)
    ]
    leaf = found.logits.clone().requires_grad_()
    (weights,) = torch.autograd.grad(log_odds(leaf, found.target).sum(), leaf)
    combined = (weights.T[:, None] * torch.stack(by_class)).sum(0)
    torch.testing.assert_close(found.reward_sums, combined)
    assert found.residuals.abs().max() > 1e-3


def test_sums_of_the_logit_are_those_of_an_explanation_of_the_logit(model):
    found = explain(model, IMAGES, rules="plain", sums=("reward", "logit"))
    of_logit = explain(model, IMAGES, rules="plain", reward="logit")
    torch.testing.assert_close(found.logit_sums, of_logit.reward_sums)
    torch.testing.assert_close(found.logit_residuals, of_logit.residuals)
    assert torch.equal(of_logit.logit_sums, of_logit.reward_sums)
    complete = explain(model, IMAGES, sums=("logit",))
    assert complete.logit_residuals.abs().max() < 1e-12


@pytest.mark.parametrize(
    ("arguments", "passes"),
    [
        ({}, 1),
        ({"sums": ["reward"]}, 1),
        ({"sums": []}, 1),
        ({"sums": ["logit"]}, 2),
        ({"sums": ["reward", "logit"]}, 2),
        ({"sums": ["logit"], "reward": logit}, 1),
        ({"sums": ["logit"], "reward": output, "task": "multilabel"}, 1),  # the logit of a label
    ],
)
def test_sums_of_the_logit_take_a_backward_pass_unless_it_is_the_reward(model, arguments, passes):
    read = read_token_model(model, IMAGES, forward=lambda x: Counted.apply(model(x)))
    with explanation_state(model):
        PASSES.clear()
        explain_tokens(read, IMAGES, unknown="ignore", **arguments)
    assert PASSES.count(len(IMAGES)) == passes  # others measure, with an image twice


@pytest.mark.parametrize("method", ["fullgrad_plus", "input_x_gradient"])
def test_what_nobody_asks_for_is_not_there_and_changes_no_map(model, method):
    whole = explain(model, IMAGES, method=method, sums=("reward", "logit"))
    bare = explain(model, IMAGES, method=method, sums=(), batch_size=2)
    assert torch.equal(whole.logit_residuals, whole.logit_sums - whole.target_logit)
    torch.testing.assert_close(whole.attribution, bare.attribution)
    assert (bare.token_biases is None) == (method == "input_x_gradient")
    assert bare.logit_sums is None
    with pytest.raises(LibraGradError, match="not added up for the logit; add 'logit' to `sums`"):
        _ = bare.logit_residuals
    if bare.reward_sums is None:
        with pytest.raises(LibraGradError, match="not added up for the reward; add 'reward'"):
            _ = bare.residuals


def test_a_method_of_ones_own_is_given_biases(model):
    found = explain(model, IMAGES, method=lambda c: c.token_biases[0], sums=())
    expected = explain(model, IMAGES).token_biases
    torch.testing.assert_close(torch.cat([found.prefix, found.attribution.flatten(1)], 1), expected)
