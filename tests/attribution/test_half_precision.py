"""Explanations of a trained model in bfloat16 are those in float32, up to bfloat16's rounding."""

import functools

import pytest
import timm
import torch
import torch.nn.functional as F

from libragrad_lightning import explain
from libragrad_lightning.models import read_token_model
from libragrad_lightning.perturbation import deletion_logits

pytestmark = pytest.mark.rotating

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3}


def quadrants(count, seed):
    """Noise with a bright square in one of four quadrants, which is the class."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(count, 3, 32, 32, generator=generator)
    labels = torch.randint(4, (count,), generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        y, x = 16 * (label // 2) + 4, 16 * (label % 2) + 4
        image[:, y : y + 8, x : x + 8] += 1
    return images, labels


@functools.cache
def trained():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=4, **SMALL)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for step in range(250):
        images, labels = quadrants(64, step)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.eval()


def correlation(a, b):
    a, b = (x.double().flatten(1) - x.double().flatten(1).mean(1, keepdim=True) for x in (a, b))
    return F.cosine_similarity(a, b, dim=1)


def test_the_model_is_trained_and_its_explanation_is_faithful():
    model, (images, labels) = trained(), quadrants(64, 1000)
    assert (model(images).argmax(1) == labels).float().mean() > 0.95
    maps = {name: explain(model, images, method=name) for name in ("fullgrad_plus", "random")}
    scores = {name: explanation.attribution for name, explanation in maps.items()}
    curves = deletion_logits(read_token_model(model, images), images, scores)
    kept = {
        name: (curve.most_influential_first.argmax(2) == labels[:, None]).float().mean()
        for name, curve in curves.items()
    }
    assert kept["fullgrad_plus"] < kept["random"] - 0.3


@pytest.mark.parametrize("method", ["fullgrad_plus", "input_x_gradient_plus", "attcat", "genatt"])
@pytest.mark.parametrize("rules", ["libra", "plain"])
@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_bfloat16_gives_the_same_maps(how, rules, method):
    model, (images, _) = trained(), quadrants(16, 2000)
    arguments = {"rules": rules, "method": method, "reward": "probability", "target": 1}
    single = explain(model, images, **arguments)
    if how == "weights":
        half = explain(_half(), images.bfloat16(), **arguments)
        assert half.attribution.dtype is torch.bfloat16
    else:
        autocast = torch.autocast("cpu", torch.bfloat16)(model.__call__)
        half = explain(model, images, forward=autocast, **arguments)
    likeness = correlation(single.attribution, half.attribution)
    # Weights that are rounded themselves make another model, and the terms of a plain gradient may
    # cancel: then torch's own rounding is what is left, and that depends on the processor.
    every = how == "autocast" and rules == "libra"
    assert (likeness.min() if every else likeness.median()) >= 0.99


@functools.cache
def _half():
    model = timm.create_model("vit_tiny_patch16_224", num_classes=4, **SMALL)
    model.load_state_dict(trained().state_dict())
    return model.bfloat16().eval()
