"""How many rows are run at once: what is fastest, found out on the way."""

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st

from libragrad_lightning.models import read_token_model
from libragrad_lightning.perturbation import deletion_logits
from libragrad_lightning.perturbation.rows import FastestRows


def settled(cost, most, rounds=40):
    """Return which sizes were run, if a row of a size costs so much."""
    fastest, sizes = FastestRows(), []
    for _ in range(rounds):
        sizes.append(fastest.at_once(most))
        fastest.took(sizes[-1], sizes[-1] * cost(sizes[-1]))
    return sizes


@pytest.mark.parametrize("best", [1, 8, 16, 32, 64, 256])
def test_the_fastest_size_is_found_and_kept(best):
    sizes = settled(lambda size: max(size / best, best / size), 256)
    assert set(sizes[-20:]) == {best}
    assert set(sizes) <= {2**n for n in range(9)}


@given(st.integers(1, 300))
def test_there_are_never_more_rows_than_there_is_room_for(most):
    sizes = settled(lambda size: 1 / size, most)
    assert max(sizes) <= most < 2 * sizes[-1] or sizes[-1] == most


def test_small_differences_do_not_count():
    sizes = settled(lambda size: 1 - 0.04 * (size != 32), 128)
    assert sizes == [32, 32, 64, 64, 16, 16] + [32] * 34


def test_the_first_time_does_not_count_if_it_was_slow():
    fastest = FastestRows()
    for size, seconds in ((32, 9.0), (32, 0.32), (64, 9.0), (64, 0.66), (16, 0.17), (16, 0.17)):
        assert fastest.at_once(128) == size
        fastest.took(size, seconds)
    assert fastest.at_once(128) == 32


def test_less_room_later_is_heeded():
    fastest = FastestRows()
    for _ in range(20):
        size = fastest.at_once(512)
        fastest.took(size, 1.0)
    assert fastest.at_once(512) == 512
    assert fastest.at_once(7) == 7


@pytest.mark.parametrize("perturbation", ["drop_tokens", "zero_tokens"])
def test_curves_are_the_same_however_many_rows_are_run(perturbation):
    torch.manual_seed(0)
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **small).eval().double()
    images = torch.randn(6, 3, 32, 32).double()
    read, scores = read_token_model(model, images), {"a": torch.randn(6, 16)}
    expected = deletion_logits(read, images, scores, perturbation=perturbation)["a"]
    fastest = FastestRows()
    for most in (4, 64):
        settings = {"batch_size": most, "perturbation": perturbation, "fastest": fastest}
        found = deletion_logits(read, images, scores, **settings)["a"]
        for order in ("most_influential_first", "least_influential_first"):
            torch.testing.assert_close(getattr(found, order), getattr(expected, order))
