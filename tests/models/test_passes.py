"""Modules that run more than once: shared blocks, test-time flips, ensembles."""

import pytest
import timm
import torch
from torch import nn

from libragrad_lightning import explain
from libragrad_lightning.backward import LibraGradError
from libragrad_lightning.models import UnreadableModelError, read_token_model
from libragrad_lightning.perturbation import deletion_logits

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
LOGIT = {"target": 1, "reward": "logit"}


def vit(seed=0, **kwargs):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **(SMALL | kwargs))
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=generator).double()
    return model.double().eval()


class Flips(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = vit()

    def forward(self, x):
        return (self.net(x) + self.net(x.flip(-1))) / 2


class Ensemble(nn.Module):
    def __init__(self, *members):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x):
        return torch.stack([member(x) for member in self.members]).mean(0)


class Shared(nn.Module):
    """ALBERT's way: one block, again and again."""

    def __init__(self):
        super().__init__()
        self.net = vit(depth=1)

    def forward(self, x):
        z = self.net._pos_embed(self.net.patch_embed(x))
        for _ in range(3):
            z = self.net.blocks[0](z)
        return self.net.head(self.net.norm(z)[:, 0])


class Unshared(Shared):
    """The same function with three blocks."""

    def __init__(self):
        super().__init__()
        self.others = nn.ModuleList(vit(depth=1).blocks[0] for _ in range(3))
        for block in self.others:
            block.load_state_dict(self.net.blocks[0].state_dict())

    def forward(self, x):
        z = self.net._pos_embed(self.net.patch_embed(x))
        for block in self.others:
            z = block(z)
        return self.net.head(self.net.norm(z)[:, 0])


@pytest.mark.parametrize("rules", ["libra", "plain"])
@pytest.mark.parametrize("method", ["fullgrad_plus", "input_x_gradient", "hirescam"])
def test_flips_are_averaged_on_the_image(method, rules):
    model = Flips()
    arguments = LOGIT | {"method": method, "rules": rules}
    one, other = (explain(model.net, x, **arguments) for x in (IMAGES, IMAGES.flip(-1)))
    found = explain(model, IMAGES, **arguments)
    expected = (one.attribution + other.attribution.flip(-1)) / 2
    torch.testing.assert_close(found.attribution, expected, rtol=0, atol=1e-14)
    sums = (one.reward_sums + other.reward_sums) / 2
    torch.testing.assert_close(found.reward_sums, sums)
    assert found.prefix.shape == (3, 2)


def test_members_of_an_ensemble_are_added():
    members = [vit(seed) for seed in range(3)]
    each = [explain(member, IMAGES, **LOGIT) for member in members]
    found = explain(Ensemble(*members), IMAGES, **LOGIT)
    mean = torch.stack([e.attribution for e in each]).mean(0)
    torch.testing.assert_close(found.attribution, mean, rtol=0, atol=1e-14)
    assert found.residuals.abs().max() < 1e-13


@pytest.mark.parametrize("method", ["fullgrad_plus", "attcat", "genatt", "tokentm"])
def test_a_shared_block_counts_each_time(method):
    found, expected = (explain(m, IMAGES, method=method) for m in (Shared(), Unshared()))
    assert found.residuals.shape == (3, 3)
    torch.testing.assert_close(found.attribution, expected.attribution, rtol=1e-12, atol=1e-14)


def test_passes_have_no_single_attention():
    with pytest.raises(LibraGradError, match="one self-attention over all tokens"):
        explain(Flips(), IMAGES, method="genatt")


def test_patches_of_all_passes_are_deleted_together():
    model = Flips()
    read = read_token_model(model, IMAGES)
    assert not read.can_drop_tokens(IMAGES)
    scores = torch.randn(3, 16)
    curves = deletion_logits(read, IMAGES, {"a": scores}, (0.0, 0.5), perturbation="tokens")["a"]
    assert curves.perturbation == "zero_tokens"
    plain = model(IMAGES)
    torch.testing.assert_close(curves.most_influential_first[:, 0], plain, rtol=0, atol=1e-12)
    tokens = read.tokens(IMAGES)
    kept = scores.argsort(1, descending=True).argsort(1) >= 8
    expected = read.logits_from_tokens(IMAGES, tokens * read.views(IMAGES)[0].kept(kept)[..., None])
    torch.testing.assert_close(curves.most_influential_first[:, 1], expected)


@pytest.mark.parametrize("method", ["integrated_gradients", "smoothgrad"])
def test_methods_that_go_on_from_other_tokens(method):
    assert explain(Flips(), IMAGES[:1], method=method).attribution.isfinite().all()


def test_members_of_another_form_are_refused_with_the_cause():
    model = Ensemble(vit(), vit(depth=2))
    with pytest.raises(UnreadableModelError, match=r"2 passes .*members.*`forward`"):
        explain(model, IMAGES)
    one = explain(model, IMAGES, forward=model.members[1])
    assert torch.equal(one.attribution, explain(model.members[1], IMAGES).attribution)


def test_several_views_in_one_batch_are_refused_with_the_cause():
    net = vit()

    class Batch(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(torch.cat([x, x.flip(-1)])).unflatten(0, (2, -1)).mean(0)

    with pytest.raises(UnreadableModelError, match=r"2 rows for each image.*`forward`"):
        explain(Batch(), IMAGES)
    one = explain(Batch(), IMAGES, forward=net)
    assert torch.equal(one.attribution, explain(net, IMAGES).attribution)
