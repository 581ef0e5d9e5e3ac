"""Libra decomposes models of other libraries completely, and leaves their outputs alone."""

import pytest
import torch
from library_models import MODELS

import completeness
from libragrad_lightning.backward import LIBRA, PLAIN
from libragrad_lightning.diagnosis.random_constants import draw_constants

pytestmark = pytest.mark.rotating


def images(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 64, 64, generator=generator, dtype=torch.float64)


def randomised(name):
    model = MODELS[name].build().eval().double()
    draw_constants(model, images(1))
    return model


@pytest.mark.parametrize("name", MODELS)
def test_the_decomposition_is_complete_and_the_output_untouched(name):
    model, scores = randomised(name), MODELS[name].scores
    with completeness.double_precision():
        double = completeness.decompose_model(model, images(2), (LIBRA, PLAIN), scores)
    single = completeness.decompose_model(model.float(), images(2).float(), (LIBRA,), scores)
    libra, plain = double.decompositions
    assert double.identical
    assert single.identical
    assert double.contrast > 0.01
    assert not double.graph.unknown() | single.graph.unknown()
    assert libra.error < 1e-9
    assert plain.error > 1e-3
    assert single.decompositions[0].noise < 1e-4
