"""Our float64 token maps equal the arrays of the authors' code, for every rule set and reward."""

import functools

import golden_weights
import numpy as np
import pytest
import torch
from golden_cases import RULES, arrays, relative_difference

from libragrad_lightning.attribution import METHODS, WeightedIntegratedGradients, logit, probability
from libragrad_lightning.attribution.capture import capture
from libragrad_lightning.attribution.explaining import explain_tokens
from libragrad_lightning.attribution.rewards import reward_gradient
from libragrad_lightning.backward import PLAIN
from libragrad_lightning.models import explanation_state, read_token_model

ARCHS = ("vit_tiny", "vit_tiny_d12", "deit3_small", "siglip_map", "eva02_tiny", "mixer_s32")
REWARDS = {"S0": logit, "S1": probability}
NAMES = {
    "ixg": "input_x_gradient",
    "hirescam": "hirescam",
    "cat_plus": "input_x_gradient_plus",
    "fullgrad": "fullgrad",
    "fullgrad_plus": "fullgrad_plus",
    "fullgrad_sum": "fullgrad_over_levels",
    "gradcam": "gradcam",
    "gradcam_plus": "gradcam_plus",
    "xgradcam": "xgradcam",
    "xgradcam_plus": "xgradcam_plus",
    "attcat": "attcat",
    "genatt": "genatt",
    "rollout": "attention_rollout",
    "rawatt": "raw_attention",
    "gradsam": "gradsam",
    "patchgrad_l2": "saliency",
    "tokentm": "tokentm",
}
BIASED = {"fullgrad": 1, "fullgrad_plus": 1, "fullgrad_sum": None}
"""Methods with biases, and how many levels of them they count (None: all)."""
TOLERANCE = 1e-12

# The authors count the bias of the pooling query once per token although it reaches none of them,
# wherever the query has a gradient (README of the golden arrays, 7.7).
QUERY_BIAS = {("siglip_map", rules) for rules in ("ng", "attnlrp", "wo_att", "mlp_gate")}


@functools.cache
def recorded(arch):
    torch.set_num_threads(1)
    model = golden_weights.build_stock(arch)
    images = golden_weights.make_input(arch)
    read = read_token_model(model, images)
    with explanation_state(model):
        recording = read.record(images)
    return model, recording


@pytest.mark.parametrize("arch", ARCHS)
def test_logits_are_those_of_the_authors(arch):
    _, recording = recorded(arch)
    assert relative_difference(recording.logits.detach().numpy(), arrays(arch)["logits"]) < 1e-13


def cases():
    keys = {(arch, *key.split("/")[:2]) for arch in ARCHS for key in arrays(arch)}
    return sorted(case for case in keys if case[1] in RULES and case[2] in REWARDS)


@pytest.mark.parametrize(("arch", "rules", "reward"), cases())
def test_maps_are_those_of_the_authors(arch, rules, reward):
    golden = {
        key.rpartition("/")[2]: value
        for key, value in arrays(arch).items()
        if key.startswith(f"{rules}/{reward}/")
    }
    assert "ixg" in golden
    model, recording = recorded(arch)
    target = torch.tensor(golden_weights.TARGETS)
    gradient = reward_gradient(recording.logits.detach(), target, REWARDS[reward])
    attention = arch != "mixer_s32"
    with explanation_state(model):
        captured = capture(
            recording, gradient, RULES[rules], retain_graph=True, attention=attention
        )
    for name, method in NAMES.items():
        if name not in golden or (name in BIASED and (arch, rules) in QUERY_BIAS):
            continue
        ours = METHODS[method](captured).numpy().copy()
        if name in BIASED:
            # The authors put biases of the head onto the first token, but no others.
            ours[:, 0] += captured.image_biases[: BIASED[name]].sum(0).numpy()
            ours[:, 0] -= golden.get("unattributed_bias", 0)
        first = 1 if name == "fullgrad_sum" and not attention else 0
        assert relative_difference(ours[:, first:], golden[name][:, first:]) < TOLERANCE, name
        if name in ("genatt", "rollout", "tokentm"):  # whose class token dwarfs the patches
            assert relative_difference(ours[:, 1:], golden[name][:, 1:]) < TOLERANCE, name
    if (arch, rules) not in QUERY_BIAS:
        residual = captured.fullgrad_sums().numpy() - golden["reward"][None]
        assert np.abs(residual - golden["ce_fullgrad"]).max() < TOLERANCE


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize(
    "arch",
    ["vit_tiny", *(pytest.param(arch, marks=pytest.mark.slow) for arch in ARCHS[1:])],
)
def test_integrated_gradients_are_those_of_the_authors(arch, reward):
    model, _ = recorded(arch)
    images = golden_weights.make_input(arch)
    read = read_token_model(model, images)
    with explanation_state(model):
        (explanation,) = explain_tokens(
            read,
            images,
            torch.tensor(golden_weights.TARGETS),
            rules=(PLAIN,),
            method=WeightedIntegratedGradients(),
            target="label",
            reward=REWARDS[reward],
        )
    ours = torch.cat([explanation.prefix, explanation.attribution.flatten(1)], 1).numpy()
    assert relative_difference(ours, arrays(arch)[f"ig/{reward}/ig"]) < 1e-11
