"""An explanation leaves no trace on the model or on the process."""

import random

import numpy as np
import pytest
import timm
import torch
from torch import nn

from libragrad_lightning.models import explanation_state


class Noisy(nn.Module):
    """A module with everything that an explanation could disturb."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.dropout = nn.Dropout(0.5).eval()
        self.norm = nn.BatchNorm1d(4)
        self.grad_checkpointing = True
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        x = x + torch.randn_like(x) + random.random() + np.random.rand()
        return self.norm(self.dropout(self.frozen(self.linear(x))))


def fingerprint(model):
    return (
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [p.grad for p in model.parameters()],
        [b.clone() for b in model.buffers()],
        model.grad_checkpointing,
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
    )


def same(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_put_back(mode, fails):
    model = Noisy()
    with mode(), torch.autocast("cpu", torch.bfloat16):
        before = fingerprint(model)
        try:
            with explanation_state(model):
                y = model(torch.randn(3, 4))
                torch.autograd.grad(y.sum(), model.linear.bias)
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert fails
        assert same(before, fingerprint(model))


def test_inside_the_model_can_be_explained():
    model = Noisy()
    with torch.inference_mode(), explanation_state(model):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert not any(m.training for m in model.modules())
        assert not model.grad_checkpointing
        assert model.frozen.bias.requires_grad
        assert not model.frozen.weight.requires_grad
        assert model.linear.weight.requires_grad


def not_at_all(model, images):
    pass


def without_gradients(model, images):
    with torch.no_grad():
        model(images)


def in_inference_mode(model, images):
    with torch.inference_mode():
        model(images)


def with_a_graph_that_is_freed(model, images):
    model(images).sum().backward()
    model.zero_grad()


@pytest.mark.parametrize("name", ["levit_128s", "efficientformer_l1"])
@pytest.mark.parametrize(
    "fill", [not_at_all, without_gradients, in_inference_mode, with_a_graph_that_is_freed]
)
def test_cached_attention_biases_are_as_they_were(name, fill):
    model = timm.create_model(name, num_classes=3).eval()
    images = torch.randn(1, 3, 224, 224)
    fill(model, images)
    before = [dict(cache) for cache in caches(model)]
    assert any(before) == (fill is not not_at_all)
    with explanation_state(model):
        x = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(x).sum(), x)
        assert gradient.any()
    assert caches(model)
    assert same_objects(before, caches(model))


class Remembering(nn.Module):
    """Goes on with what it computed before, kept in an attribute or a buffer."""

    def __init__(self, buffer):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        if buffer:
            self.register_buffer("before", torch.ones(1, 4), persistent=False)
        else:
            self.before = torch.ones(1, 4)

    def forward(self, x):
        y = self.linear(x) * self.before
        self.before = y.detach().mean(0, keepdim=True)
        return y


@pytest.mark.parametrize("buffer", [False, True])
def test_a_tensor_of_inference_mode_that_a_module_keeps_is_differentiated_through(buffer):
    model = Remembering(buffer).eval()
    x = torch.ones(2, 4)
    in_inference_mode(model, x)
    kept = model.before
    assert kept.is_inference()
    with explanation_state(model):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(leaf).sum(), leaf)
    expected = (model.linear.weight.detach() * kept.T).sum(0)
    torch.testing.assert_close(gradient, expected.expand(2, -1))
    assert model.before is kept


def test_a_dict_of_tensors_that_is_no_cache_stays_in_place():
    class Prototypes(nn.Module):
        def __init__(self):
            super().__init__()
            self.prototypes = {"first": torch.ones(4)}

        def forward(self, x):
            return x * self.prototypes["first"]

    model = Prototypes()
    with explanation_state(model):
        assert torch.equal(model(torch.ones(1, 4)), torch.ones(1, 4))


def caches(model):
    named = (getattr(m, "attention_bias_cache", None) for m in model.modules())
    return [cache for cache in named if cache is not None]


def same_objects(first, second):
    return all(
        a.keys() == b.keys() and all(a[k] is b[k] for k in a)
        for a, b in zip(first, second, strict=True)
    )
