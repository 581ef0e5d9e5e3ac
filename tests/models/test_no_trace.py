"""Whatever happens during an explanation, the model and the process are as they were before."""

import itertools
import random
import threading
from contextlib import nullcontext
from functools import partial
from types import MethodType

import numpy as np
import pytest
import torch
from memory_objects import Tally
from situation_cases import images, vit
from torch import nn

from libragrad_lightning.attribution import fullgrad_plus
from libragrad_lightning.attribution.explaining import explain_tokens
from libragrad_lightning.backward import (
    LIBRA,
    VOCABULARY,
    Activation,
    ConstantObserver,
    RuleSet,
    grad,
)
from libragrad_lightning.diagnosis import coverage, explain_incompleteness
from libragrad_lightning.models import explanation_state, read_token_model


class Mindful(nn.Module):
    """Keeps something of every forward pass, in every way that a module can."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(24, 24, batch_first=True)
        self.norm = nn.BatchNorm1d(24)
        self.bias = nn.Parameter(torch.ones(24))
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("latest", torch.zeros(()))
        self.steps = torch.zeros(())
        self.count = 0
        self.outputs = []
        self.cache = {}
        self.seen = {"shapes": 1}
        self.tally = Tally()
        self.nested = {"calls": [{0}, (Tally(),)]}
        self.streams = [torch.Generator(), np.random.default_rng(1)]
        self.numbers = itertools.count()
        self.array = np.zeros(2)
        self.fails = False

    def forward(self, x):
        self.calls += 1
        self.latest = self.latest + 1
        self.steps += 1
        self.count += 1
        if "bias" not in self.cache:
            self.cache["bias"] = self.bias * 2
        self.seen[self.count] = tuple(x.shape)
        x = x + self.lstm(x)[0] + self.cache["bias"] + random.random() + np.random.rand()
        x = x + torch.randn_like(x)
        x = x + torch.rand((), generator=self.streams[0]) + self.streams[1].random()
        self.tally.add()
        self.nested["calls"][0].add(next(self.numbers))
        self.nested["calls"][1][0].add()
        self.array += 1
        self.outputs.append(x)
        self.last_output = x
        if self.fails:
            raise PlantedError
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


class PlantedError(Exception):
    """What goes wrong."""


def fail(*_):
    raise PlantedError


def mindful_vit():
    model = vit().float()
    model.blocks[0].drop_path1 = Mindful()
    with torch.no_grad(), torch.inference_mode():
        model(images().float())
    model.train().set_grad_checkpointing()
    model.blocks[1].requires_grad_(False)
    model.blocks[1].norm1.eval()
    model.blocks[1].register_forward_hook(Tally().add)
    model.blocks[1].mlp.register_full_backward_hook(Tally().add)
    return model


def digest(model):
    """Everything that an explanation could disturb; objects stand for themselves."""
    return {
        "attributes": [(path, kept(vars(module))) for path, module in model.named_modules()],
        "tensors": [
            (t, t.detach().clone().tolist(), t.requires_grad, t.is_leaf and t.grad)
            for t in tensors(model)
        ],
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "onednn": torch.backends.mkldnn.enabled,
        "compiler": torch._dynamo.eval_frame._stance.stance,
        "modes": torch.overrides._get_current_function_mode_stack(),
        "random": (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1]),
        "lock": another_thread_can_explain(),
    }


def kept(value):
    """Return a copy of containers, as deep as they go."""
    if isinstance(value, dict):
        return {key: kept(item) for key, item in value.items()}
    if isinstance(value, Tally):
        return value, kept(vars(value))
    if isinstance(value, torch.Generator):
        return value, value.get_state().tolist()
    if isinstance(value, np.random.Generator):
        return value, str(value.bit_generator.state)
    if isinstance(value, np.ndarray):
        return value, value.tolist()
    if isinstance(value, itertools.count):
        return value, repr(value)
    if isinstance(value, MethodType):
        return value, kept(value.__self__)
    return [kept(item) for item in value] if isinstance(value, list | tuple | set) else value


def tensors(model):
    values = [value for module in model.modules() for value in vars(module).values()]
    plain = [value for value in values if isinstance(value, torch.Tensor)]
    return [*model.parameters(), *model.buffers(), *plain]


def another_thread_can_explain():
    done = []

    def explain():
        with explanation_state(nn.Identity()):
            done.append(True)

    thread = threading.Thread(target=explain, daemon=True)
    thread.start()
    thread.join(5)
    return done


def same(first, second):
    if isinstance(first, torch.Tensor):
        return first is second
    if isinstance(first, np.ndarray):
        return first is second or np.array_equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first is second or first == second


PIXELS = images(1).float()


def explain_with_tokens(model, method=fullgrad_plus, rules=LIBRA):
    with explanation_state(model):
        explain_tokens(read_token_model(model, PIXELS), PIXELS, method=method, rules=[rules])


def explain_with_the_engine(model, on_bias=lambda *_: None, rules=LIBRA):
    with explanation_state(model), ConstantObserver():
        x = PIXELS.clone().requires_grad_()
        grad(model(x).sum(), x, on_bias=on_bias, rules=rules)


def find_leaks(model, rules=LIBRA):
    explain_incompleteness(model, PIXELS, rules=rules)


def report_coverage(model, rules=LIBRA):
    coverage(model, PIXELS, rules=rules)


def a_failing_forward_pass(model):
    model.blocks[0].drop_path1.fails = True


def a_failing_forward_hook(model):
    model.blocks[1].mlp.register_forward_hook(fail)


def a_failing_hook_of_a_tensor(model):
    def watch(module, args, output):
        output.register_hook(fail)

    model.blocks[1].mlp.register_forward_hook(watch)


FAILING_GATE = RuleSet(
    "failing",
    LIBRA.rules,
    VOCABULARY.replaced({"GeluBackward": Activation(fail)}),
)
EXPLANATIONS = [explain_with_tokens, explain_with_the_engine, find_leaks, report_coverage]
DIFFERENTIATING = [explain_with_tokens, explain_with_the_engine, find_leaks]


def assert_no_trace(model, explain, raises):
    before = digest(model)
    with pytest.raises(raises) if raises else nullcontext():
        explain(model)
    after = digest(model)
    assert [name for name in before if not same(before[name], after[name])] == []


@pytest.mark.parametrize("explain", EXPLANATIONS)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_an_explanation_leaves_no_trace(explain, mode):
    model = mindful_vit()
    with mode(), torch.autocast("cpu", torch.bfloat16):
        assert_no_trace(model, explain, raises=None)


@pytest.mark.parametrize("explain", EXPLANATIONS)
@pytest.mark.parametrize("plant", [a_failing_forward_pass, a_failing_forward_hook])
def test_a_forward_pass_that_fails_leaves_no_trace(explain, plant):
    model = mindful_vit()
    plant(model)
    assert_no_trace(model, explain, raises=PlantedError)


@pytest.mark.parametrize("explain", DIFFERENTIATING)
def test_a_backward_pass_that_fails_leaves_no_trace(explain):
    model = mindful_vit()
    a_failing_hook_of_a_tensor(model)
    assert_no_trace(model, explain, raises=PlantedError)


@pytest.mark.parametrize("explain", DIFFERENTIATING)
def test_a_rule_that_fails_leaves_no_trace(explain):
    assert_no_trace(mindful_vit(), partial(explain, rules=FAILING_GATE), raises=PlantedError)


@pytest.mark.parametrize(
    "explain",
    [partial(explain_with_the_engine, on_bias=fail), partial(explain_with_tokens, method=fail)],
    ids=["sink", "method"],
)
def test_a_function_of_the_user_that_fails_leaves_no_trace(explain):
    assert_no_trace(mindful_vit(), explain, raises=PlantedError)


def test_the_digest_sees_what_a_forward_pass_changes():
    model = mindful_vit()
    before = digest(model)
    model(PIXELS)
    after = digest(model)
    changed = {name for name in before if not same(before[name], after[name])}
    assert changed == {"attributes", "tensors", "random"}
