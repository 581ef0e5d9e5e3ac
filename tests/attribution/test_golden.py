"""Our float64 token maps equal the arrays of the authors' code, for every rule set and reward."""

import functools

import golden_weights
import numpy as np
import pytest
import torch
from golden_cases import RULES, arrays, relative_difference

from libragrad_lightning.attribution import (
    capture,
    fullgrad,
    fullgrad_plus,
    input_x_gradient,
    logit,
    probability,
    reward_gradient,
)
from libragrad_lightning.models import explanation_state, read_token_model

ARCHS = ("vit_tiny", "deit3_small", "siglip_map", "eva02_tiny")
REWARDS = {"S0": logit, "S1": probability}
METHODS = {"ixg": input_x_gradient, "fullgrad": fullgrad, "fullgrad_plus": fullgrad_plus}
TOLERANCE = 1e-12

# The authors count the bias of the pooling query once per token although it reaches none of them,
# wherever the query has a gradient (README of the golden arrays, 7.7).
QUERY_BIAS = {("siglip_map", rules) for rules in ("ng", "attnlrp", "wo_att", "mlp_gate")}


@functools.cache
def recorded(arch):
    torch.set_num_threads(1)
    model = golden_weights.build_stock(arch)
    with explanation_state(model):
        recording = read_token_model(model).record(golden_weights.make_input(arch))
    return model, recording


@pytest.mark.parametrize("arch", ARCHS)
def test_logits_are_those_of_the_authors(arch):
    _, recording = recorded(arch)
    assert relative_difference(recording.logits.detach().numpy(), arrays(arch)["logits"]) < 1e-13


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("arch", ARCHS)
def test_maps_are_those_of_the_authors(arch, rules, reward):
    golden = {
        key.rpartition("/")[2]: value
        for key, value in arrays(arch).items()
        if key.startswith(f"{rules}/{reward}/")
    }
    if not golden:
        pytest.skip("not among the golden arrays")
    model, recording = recorded(arch)
    target = torch.tensor(golden_weights.TARGETS)
    gradient = reward_gradient(recording.logits.detach(), target, REWARDS[reward])
    with explanation_state(model):
        captured = capture(recording, gradient, RULES[rules], retain_graph=True)
    for name, method in METHODS.items():
        if name not in golden or (name != "ixg" and (arch, rules) in QUERY_BIAS):
            continue
        ours = method(captured).numpy().copy()
        if name != "ixg":
            # The authors put biases that belong to no token onto the first one.
            ours[:, 0] += captured.image_biases[0].numpy()
        assert relative_difference(ours, golden[name]) < TOLERANCE, name
    if (arch, rules) not in QUERY_BIAS:
        residual = captured.fullgrad_sums().numpy() - golden["reward"][None]
        assert np.abs(residual - golden["ce_fullgrad"]).max() < TOLERANCE
