"""Two totals of the biases that know nothing of each other: sites, and gradients of leaves."""

import pytest
import torch
import torch.nn.functional as F
from backward_cases import BiasRecord, leaves, total_by_leaves
from torch import nn

from libragrad_lightning.backward import LIBRA, RULE_SETS, Role, grad

RULES = [*RULE_SETS.values(), LIBRA.without(Role.ATTENTION), LIBRA.without(Role.NORMALIZATION)]


class VisionTransformer(nn.Module):
    """Patches, a class token, positions, two blocks, a pooling by a learned query.

    The query has no bias: where rules give queries a gradient, that of a constant one is a factor.
    """

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, stride=2)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 5, 8))
        layer = {"batch_first": True, "norm_first": True, "activation": F.gelu}
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 12, 0, **layer) for _ in "12")
        self.query = nn.Parameter(torch.randn(1, 1, 8))
        self.pool = nn.Linear(8, 16)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        key, value = self.pool(x).chunk(2, -1)
        pooled = F.scaled_dot_product_attention(self.query.expand(len(x), -1, -1), key, value)
        return self.head(x[:, 0] + pooled[:, 0])


class GatedMixer(nn.Module):
    """Gated layers, squeeze and excitation, a concatenated bias, relative positions, GroupNorm."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU())
        self.excite = nn.Conv2d(8, 8, 1)
        self.qkv = nn.Linear(8, 24, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(8))
        self.table = nn.Parameter(torch.randn(7, 2))
        self.up, self.side, self.down = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)
        self.scale = nn.Parameter(torch.randn(8))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        x = x * self.excite(x.mean((2, 3), keepdim=True)).sigmoid()
        x = x.flatten(2).transpose(1, 2)
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        q, k, v = F.linear(x, self.qkv.weight, bias).unflatten(2, (3, 2, 4)).unbind(2)
        index = torch.arange(x.shape[1])[:, None] + torch.arange(x.shape[1])
        mask = self.table[index % 7].permute(2, 0, 1)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.scale * mixed.transpose(1, 2).flatten(2)
        x = x + self.down(F.gelu(self.up(x)) * self.side(x))
        return self.head(self.norm(x).mean(1))


class NormFree(nn.Module):
    """Convolutions with batch norms, whose means are biases without a leaf."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in "12")
        self.convs = nn.ModuleList(nn.Conv2d(i, 4, 3, padding=1) for i in (3, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.hardswish(norm(conv(x)))
        return self.head(x.mean((2, 3)))


def build(kind):
    torch.manual_seed(0)
    model = kind().double().eval()
    with torch.no_grad():
        for value in [*model.parameters(), *model.buffers()]:
            if value.is_floating_point():
                value.uniform_(-1, 1)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 2)
    return model


def bias_leaves(model):
    """Everything that is added: biases, and the parameters that stand for tokens or positions."""
    added = ("bias", "token", "positions", "table")
    return [p for name, p in model.named_parameters() if name.endswith(added)]


@pytest.mark.parametrize("rules", RULES, ids=repr)
@pytest.mark.parametrize("kind", [VisionTransformer, GatedMixer])
def test_sites_and_leaves_give_the_same_total(kind, rules):
    model = build(kind)
    (x,) = leaves(0, (2, 3, 4, 4))
    output = model(x)[:, 0].sum()
    record = BiasRecord()
    grad(output, x, rules=rules, on_bias=record, retain_graph=True)
    by_leaves = total_by_leaves(output, [x], bias_leaves(model), rules)
    held = [
        contribution.sum()
        for site, contribution in zip(record.sites, record.contributions, strict=True)
        if site.kind.value != "recorded"
    ]
    assert not held
    magnitude = torch.stack([c.abs().sum() for c in record.contributions]).sum()
    assert abs(record.total() - by_leaves) <= 1e-13 * magnitude
    assert magnitude > 1


def test_the_means_of_batch_norms_are_what_leaves_do_not_know():
    model = build(NormFree)
    (x,) = leaves(0, (2, 3, 4, 4))
    output = model(x)[:, 0].sum()
    record = BiasRecord()
    grad(output, x, on_bias=record, retain_graph=True)
    by_leaves = total_by_leaves(output, [x], bias_leaves(model))
    betas = [norm.bias for norm in model.norms]
    gradients = grad(output, x, observed=betas, retain_graph=True)[1:]
    means = [
        -(norm.weight * norm.running_mean / (norm.running_var + norm.eps).sqrt() * g).sum()
        for norm, g in zip(model.norms, gradients, strict=True)
    ]
    total = (by_leaves + sum(means)).detach()
    torch.testing.assert_close(record.total(), total, rtol=1e-12, atol=1e-12)
    assert abs(sum(means)) > 1e-3


@pytest.mark.parametrize("kind", [VisionTransformer, GatedMixer])
def test_both_totals_complete_the_attribution(kind):
    model = build(kind)
    (x,) = leaves(1, (2, 3, 4, 4))
    output = model(x)[:, 1].sum()
    (gradient,) = grad(output, x, retain_graph=True)
    total = (x * gradient).sum() + total_by_leaves(output, [x], bias_leaves(model))
    torch.testing.assert_close(total, output, rtol=1e-11, atol=1e-11)
