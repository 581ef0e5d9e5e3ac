"""Groups of patches are deleted one at a time, each patch in one of them."""

import pytest
import torch
from test_deletion import model_of

from libragrad_lightning.metrics.functional import salience_coefficient
from libragrad_lightning.models import read_token_model
from libragrad_lightning.perturbation import (
    PERTURBATIONS,
    ZeroTokens,
    deletion_logits,
    group_logits,
)

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
MAPS = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("perturbation", sorted(PERTURBATIONS))
def test_the_first_and_the_last_group_are_what_deletion_begins_with(perturbation):
    read = read_token_model(model_of(), IMAGES)
    kinds = {"perturbation": perturbation}
    found = group_logits(read, IMAGES, {"a": MAPS}, 5, batch_size=2, **kinds)["a"]
    curves = deletion_logits(read, IMAGES, {"a": MAPS}, [3 / 16, 4 / 16], **kinds)["a"]
    torch.testing.assert_close(found.logits[:, 0], curves.most_influential_first[:, 0])
    torch.testing.assert_close(found.logits[:, -1], curves.least_influential_first[:, 1])
    assert found.perturbation == curves.perturbation
    torch.testing.assert_close(found.salience.sum(1), MAPS.sum((1, 2)))
    ordered = MAPS.flatten(1).sort(1, descending=True).values
    sizes = [3, 3, 3, 3, 4]
    sums = torch.stack([part.sum(1) for part in ordered.split(sizes, 1)], 1)
    torch.testing.assert_close(found.salience, sums)


def test_each_group_is_what_one_takes_away_by_hand():
    model = model_of()
    found = group_logits(read_token_model(model, IMAGES), IMAGES, {"a": MAPS}, 4, 64, ZeroTokens())
    order = MAPS.flatten(1).argsort(1, descending=True)
    for row in range(3):
        for group in range(4):
            tokens = model._pos_embed(model.patch_embed(IMAGES[row : row + 1]))
            tokens[:, 1 + order[row, 4 * group : 4 * group + 4]] = 0
            expected = model.forward_head(model.norm(model.blocks(tokens)))[0]
            torch.testing.assert_close(found["a"].logits[row, group], expected)


def test_a_map_of_what_each_patch_gives_is_perfect_for_a_model_that_adds_patches():
    """One patch a group: drops are the contributions themselves."""
    linear = {"global_pool": "avg", "class_token": False, "norm_layer": torch.nn.Identity}
    model = model_of(**linear)
    for block in model.blocks:
        for last in (block.attn.proj, block.mlp.fc2):
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.zeros_(last.bias)
    tokens = model._pos_embed(model.patch_embed(IMAGES))
    given = tokens @ model.head.weight[2] / 16
    read = read_token_model(model, IMAGES)
    found = group_logits(read, IMAGES, {"a": given}, 16, 64, ZeroTokens())["a"]
    drops = model(IMAGES)[:, None, 2] - found.logits[:, :, 2]
    torch.testing.assert_close(drops, found.salience)
    torch.testing.assert_close(salience_coefficient(found.salience, drops), torch.ones(3).double())
    torch.testing.assert_close(
        salience_coefficient(found.salience, -drops), -torch.ones(3).double()
    )


def test_maps_without_a_ranking_and_too_many_groups():
    read = read_token_model(model_of(), IMAGES)
    blank = MAPS.clone()
    blank[1, 0, 0] = torch.nan
    logits = group_logits(read, IMAGES, {"a": blank}, 4)["a"].logits
    assert logits.isnan().all((1, 2)).tolist() == [False, True, False]
    with pytest.raises(
        ValueError, match="`groups` must lie between 1 and the number of patches, 16"
    ):
        group_logits(read, IMAGES, {"a": MAPS}, 17)
