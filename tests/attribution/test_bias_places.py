"""Where the contributions of biases are put: on tokens, on images, or nowhere by mistake."""

import pytest
import torch
from torch import nn

from libragrad_lightning import explain
from libragrad_lightning.attribution.biases import (
    BiasLedger,
    contribution_per_image,
    contribution_per_token,
)
from libragrad_lightning.backward import LibraGradError
from libragrad_lightning.backward.biases import BiasSite
from libragrad_lightning.models import Axes, FeatureView, ImageAxis

BATCH, TOKENS, CHANNELS = 2, 7, 3
VALUES = torch.randn(BATCH, TOKENS, CHANNELS, generator=torch.Generator().manual_seed(0))
LAYOUTS = {
    "batch first": VALUES,
    "heads": VALUES.unflatten(2, (1, 3)).expand(-1, -1, 2, -1) / 2,
    "rows": VALUES.flatten(0, 1),
    "channels before tokens": VALUES.transpose(1, 2),
    "rows of channels": VALUES.transpose(1, 2).flatten(0, 1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_tokens_is_understood(layout):
    view = FeatureView(Axes.TOKENS, (2, 3), 1)
    found = contribution_per_token(LAYOUTS[layout], BATCH, view)
    torch.testing.assert_close(found, VALUES.sum(2))


@pytest.mark.parametrize("axes", [Axes.CHANNELS_FIRST, Axes.CHANNELS_LAST])
@pytest.mark.parametrize("layout", ["channels first", "channels last"])
def test_feature_maps_are_understood_in_both_orders(axes, layout):
    values = torch.randn(BATCH, 4, 5, CHANNELS)
    given = values.movedim(3, 1) if layout == "channels first" else values
    found = contribution_per_token(given, BATCH, FeatureView(axes, (4, 5)))
    torch.testing.assert_close(found, values.sum(3).flatten(1))


def test_what_has_no_tokens_belongs_to_the_image():
    view = FeatureView(Axes.TOKENS, (2, 3), 1)
    assert contribution_per_token(torch.randn(BATCH, 5), BATCH, view) is None
    windows = torch.randn(BATCH * 4, 9, CHANNELS)
    expected = windows.unflatten(0, (BATCH, 4)).sum((1, 2, 3))
    torch.testing.assert_close(contribution_per_image(windows, BATCH), expected)


AXES = {
    "time first": (VALUES.transpose(0, 1), ImageAxis("", 1, 1)),
    "rows, time first": (VALUES.transpose(0, 1).flatten(0, 1), ImageAxis("", 0, TOKENS)),
    "batch first": (VALUES, ImageAxis("", 0, 1)),
    "channels first of all": (VALUES.permute(2, 0, 1), ImageAxis("", 1, 1)),
}


@pytest.mark.parametrize("layout", AXES)
def test_images_are_put_first_wherever_they_are(layout):
    values, axis = AXES[layout]
    found = axis.batch_first(values, BATCH)
    assert found.shape[0] in (BATCH, BATCH * TOKENS)
    if layout.startswith("channels"):
        assert torch.equal(found, VALUES.transpose(1, 2))
    else:
        assert torch.equal(found.reshape(VALUES.shape), VALUES)


def test_biases_of_prefix_tokens_that_join_later_belong_to_the_image():
    views = [FeatureView(Axes.TOKENS, (2, 3), prefix) for prefix in (0, 1)]
    ledger = BiasLedger(BATCH, views)
    contribution = VALUES.double()
    ledger(
        BiasSite("AddmmBackward0", depends_on=frozenset({0, 1}), sequence=0, number=0), contribution
    )
    for level in (0, 1):
        placed = ledger.on_tokens(contribution)[level]
        torch.testing.assert_close(placed, contribution[:, 1:].sum(2))
        torch.testing.assert_close(ledger.on_images(contribution)[level], contribution[:, 0].sum(1))


def test_biases_of_a_block_are_read_as_the_tokens_of_that_block():
    views = [FeatureView(Axes.TOKENS, (2, 3), 1)] * 2 + [FeatureView(Axes.TOKENS, (7, 1))]
    ledger, contribution = BiasLedger(BATCH, views), VALUES.double()
    site = BiasSite("AddmmBackward0", depends_on=frozenset({0, 1, 2}), sequence=0, number=0)
    ledger(site, contribution)
    for placed in ledger.on_tokens(contribution):
        assert not placed[:, 0].any()
        torch.testing.assert_close(placed.sum(1), contribution.sum((1, 2)))
        rows = placed[:, 1:].view(BATCH, 2, 3)
        torch.testing.assert_close(rows, rows.mean(2, keepdim=True).expand(-1, -1, 3))
    assert not ledger.on_images(contribution).any()


def test_biases_are_not_those_of_tokens_two_blocks_on():
    grids = [FeatureView(Axes.TOKENS, size) for size in ((2, 3), (2, 2), (3, 3))]
    values = torch.randn(BATCH, 9, CHANNELS)
    for levels, placed in (({0}, False), ({0, 1}, True)):
        ledger = BiasLedger(BATCH, grids)
        site = BiasSite("AddmmBackward0", depends_on=frozenset(levels), sequence=0, number=0)
        ledger(site, values)
        assert bool(ledger.on_tokens(values)[0].any()) is placed
        assert bool(ledger.on_images(values)[0].any()) is not placed
        total = ledger.on_tokens(values)[0].sum(1) + ledger.on_images(values)[0]
        torch.testing.assert_close(total, values.sum((1, 2)))


@pytest.mark.parametrize("shape", [(3, 5), ()])
def test_what_cannot_be_told_apart_is_refused(shape):
    with pytest.raises(LibraGradError, match="cannot be told apart by image"):
        contribution_per_image(torch.randn(shape), BATCH)


@pytest.mark.parametrize("shape", [(3, 5), (), (7, 2, 3)])
def test_nothing_is_nothing_wherever_it_would_be(shape):
    found = contribution_per_image(torch.zeros(shape), BATCH)
    assert torch.equal(found, torch.zeros(BATCH))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_spoils_all_images_that_it_may_belong_to(value):
    contribution = torch.zeros(3, 5)
    contribution[0, 0] = value
    assert not contribution_per_image(contribution, BATCH).isfinite().any()
    contribution[1, 0] = 1
    assert not contribution_per_image(contribution, BATCH).isfinite().any()
    assert contribution_per_image(contribution, 3).isfinite().tolist() == [False, True, True]


class TimeFirst(nn.Module):
    """A transformer whose attention works on `[T, B, D]` and on its rows."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(8)
            self.attention = nn.MultiheadAttention(8, 2)
            self.mlp = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))

        def forward(self, x):
            y = self.norm(x).transpose(0, 1)
            x = x + self.attention(y, y, y, need_weights=False)[0].transpose(0, 1)
            return x + self.mlp(x)

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.blocks = nn.Sequential(self.Block(), self.Block())
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return self.head(self.blocks(tokens).mean(1))


def test_attention_over_time_first_tokens_is_complete_for_every_image():
    torch.manual_seed(0)
    model = TimeFirst().double().eval()
    for p in model.parameters():
        p.data.normal_(0, 0.4)
    images = torch.randn(4, 3, 8, 8).double()
    together = explain(model, images, batch_size=4, reward="logit")
    alone = explain(model, images, batch_size=1, reward="logit")
    assert together.residuals.abs().max() < 1e-12
    torch.testing.assert_close(together.attribution, alone.attribution)


class Gated(nn.Module):
    """Activations that overwrite what a linear layer gave to three axes, which is a view."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.blocks = nn.Sequential(*(self.Block() for _ in range(2)))
        self.head = nn.Linear(8, 3)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            layers = [nn.Linear(8, 8), nn.SiLU(inplace=True), nn.Linear(8, 8)]
            layers += [nn.Hardswish(inplace=True), nn.Linear(8, 8), nn.ReLU6(inplace=True)]
            self.mlp = nn.Sequential(*layers)

        def forward(self, x):
            return x + self.mlp(x)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return self.head(self.blocks(tokens).mean(1))


def test_activations_that_overwrite_views_are_explained():
    torch.manual_seed(0)
    model = Gated().double().eval()
    images = torch.randn(2, 3, 8, 8).double()
    logits = model(images).detach()
    explanation = explain(model, images, reward="logit")
    assert explanation.residuals.abs().max() < 1e-12
    assert torch.equal(explanation.logits, logits)
    assert all(m.inplace for m in model.modules() if hasattr(m, "inplace"))
