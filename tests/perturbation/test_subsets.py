"""Random sets of patches are deleted, and what maps give to them is added up."""

import pytest
import torch
from scipy.stats import pearsonr
from test_deletion import model_of

from libragrad_lightning.metrics.functional import mu_fidelity
from libragrad_lightning.models import read_token_model
from libragrad_lightning.perturbation import PERTURBATIONS, ZeroTokens, subset_logits
from libragrad_lightning.perturbation import subsets as room

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
MAPS = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1)).double()
FEW = {"subsets": 6, "share": 0.3}


def sets_of(images):
    return room._drawn(images, 6, 5, 16, 1)


def test_fidelity_equals_sequences_cut_by_hand():
    """One image and one set at a time, with scipy's correlation."""
    model = model_of()
    read = read_token_model(model, IMAGES)
    found = subset_logits(read, IMAGES, {"a": MAPS, "b": -MAPS.flatten(1)}, batch_size=4, **FEW)
    expected = []
    for image, values, sets in zip(IMAGES, MAPS.flatten(1), sets_of(IMAGES).tolist(), strict=True):
        sums, drops = [], []
        for gone in sets:
            assert len({*gone}) == 5
            tokens = model._pos_embed(model.patch_embed(image[None]))
            kept = [0, *(1 + i for i in range(16) if i not in gone)]
            left = model.forward_head(model.norm(model.blocks(tokens[:, kept])))
            sums.append(sum(float(values[i]) for i in gone))
            drops.append(float(model(image[None])[0, 3] - left[0, 3]))
        expected.append(pearsonr(sums, drops).statistic)
    drops = model(IMAGES)[:, None, 3] - found["a"].logits[:, :, 3]
    fidelity = mu_fidelity(found["a"].salience, drops)
    torch.testing.assert_close(fidelity, torch.tensor(expected), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mu_fidelity(found["b"].salience, drops), -fidelity)
    assert found["a"].perturbation == "drop_tokens"


@pytest.mark.parametrize("perturbation", sorted(PERTURBATIONS))
def test_an_image_has_its_own_sets_in_any_batch(perturbation):
    read = read_token_model(model_of(), IMAGES)
    together = subset_logits(read, IMAGES, {"a": MAPS}, perturbation=perturbation, **FEW)["a"]
    alone = subset_logits(read, IMAGES[1:2], {"a": MAPS[1:2]}, perturbation=perturbation, **FEW)
    torch.testing.assert_close(alone["a"].logits[0], together.logits[1])
    assert torch.equal(alone["a"].salience[0], together.salience[1])
    assert not torch.equal(together.salience[0].argsort(), together.salience[1].argsort())
    other = subset_logits(read, IMAGES, {"a": MAPS}, seed=2, perturbation=perturbation, **FEW)
    assert not torch.equal(other["a"].salience, together.salience)


def test_a_map_of_what_each_patch_gives_is_perfect_for_a_model_that_adds_patches():
    linear = {"global_pool": "avg", "class_token": False, "norm_layer": torch.nn.Identity}
    model = model_of(**linear)
    for block in model.blocks:
        for last in (block.attn.proj, block.mlp.fc2):
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.zeros_(last.bias)
    given = model._pos_embed(model.patch_embed(IMAGES)) @ model.head.weight[2] / 16
    maps = {"exact": given, "scaled": 3 * given + 1, "against": -given}
    found = subset_logits(read_token_model(model, IMAGES), IMAGES, maps, perturbation=ZeroTokens())
    drops = model(IMAGES)[:, None, 2] - found["exact"].logits[:, :, 2]
    torch.testing.assert_close(drops, found["exact"].salience)
    for name, expected in (("exact", 1.0), ("scaled", 1.0), ("against", -1.0)):
        fidelity = mu_fidelity(found[name].salience, drops)
        torch.testing.assert_close(fidelity, torch.full((3,), expected).double())


def test_maps_without_a_correlation():
    """A constant map in float32: sums of equal values must be equal, in whatever order."""
    maps = torch.stack([torch.full((4, 4), 0.1), torch.rand(4, 4), torch.rand(4, 4)])
    maps[1, 0, 0] = torch.nan
    read = read_token_model(model_of(), IMAGES)
    found = subset_logits(read, IMAGES, {"a": maps}, **FEW)["a"]
    assert found.logits.isfinite().all()
    assert found.salience.isnan().all(1).tolist() == [False, True, False]
    fidelity = mu_fidelity(found.salience, found.logits[:, :, 0])
    assert fidelity.isnan().tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"share": 0.02}, r"`share` must let each set hold 1 to 15 of the 16 patches but is 0.02"),
        ({"share": 1.0}, "`share` must let each set hold 1 to 15"),
        ({"subsets": 1}, "`subsets` must be at least 2"),
    ],
)
def test_sets_that_have_no_correlation_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        subset_logits(read_token_model(model_of(), IMAGES), IMAGES, {"a": MAPS}, **arguments)
