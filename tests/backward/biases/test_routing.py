"""Contributions of rows that were picked by what they hold go back to where they were picked."""

import pytest
import torch
from torch import nn

from libragrad_lightning import explain
from libragrad_lightning.backward import LIBRA, PLAIN, grad

B, T, D = 3, 5, 4
SCORE = torch.randn(B, T, D, generator=torch.Generator().manual_seed(1)).double()


class Experts(nn.Module):
    """Two experts that are the same; a way to send rows to them and back."""

    def __init__(self, send):
        super().__init__()
        torch.manual_seed(0)
        self.mlp = nn.Sequential(nn.Linear(D, 7), nn.GELU(), nn.Linear(7, D)).double()
        self.route, self.send = nn.Linear(D, 2).double(), send

    def forward(self, x):
        return self.send(self.mlp, x, self.route(x).argmax(-1))


def mask(mlp, x, chosen):
    out = torch.zeros_like(x)
    for expert in (0, 1):
        out[chosen == expert] = mlp(x[chosen == expert])
    return out


def added(mlp, x, chosen):
    rows, out = x.flatten(0, 1), torch.zeros_like(x).flatten(0, 1)
    for expert in (0, 1):
        index = (chosen.flatten() == expert).nonzero()[:, 0]
        out = out.index_add(0, index, mlp(rows.index_select(0, index)))
    return out.view_as(x)


def sorted_rows(mlp, x, chosen):
    order = chosen.flatten().argsort()
    picked = x.flatten(0, 1)[order]
    parts = picked.split([int((chosen == expert).sum()) for expert in (0, 1)])
    return torch.cat([mlp(part) for part in parts])[order.argsort()].view_as(x)


def gathered(mlp, x, chosen):
    order = chosen.flatten().argsort()[:, None].expand(-1, D)
    rows = mlp(x.flatten(0, 1).gather(0, order))
    return torch.zeros_like(x).flatten(0, 1).scatter(0, order, rows).view_as(x)


def sorted_images(mlp, x, chosen):
    order = x[:, 0, 0].argsort()
    return mlp(x[order])[order.argsort()]


def nothing(mlp, x, chosen):
    return mlp(x)


WAYS = [mask, added, sorted_rows, gathered, sorted_images]


def contributions(send, rules):
    """Return the sum over channels of all contributions with places for tokens, `[B, T]`."""
    x = torch.randn(B, T, D, generator=torch.Generator().manual_seed(2)).double().requires_grad_()
    total = torch.zeros(B, T, dtype=torch.float64)

    def add(site, contribution):
        nonlocal total
        total = total + contribution.reshape(B, T, -1).sum(2)

    y = x + Experts(send)(x)
    (gradient,) = grad((y * SCORE).sum(), x, rules=rules, on_bias=add)
    return total, gradient, float((y * SCORE).sum()), x


@pytest.mark.parametrize("rules", [LIBRA, PLAIN])
@pytest.mark.parametrize("send", WAYS)
def test_rows_contribute_where_they_come_from(send, rules):
    expected, gradient, *_ = contributions(nothing, rules)
    found, same, value, x = contributions(send, rules)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(same, gradient, rtol=0, atol=1e-12)
    if rules is LIBRA:
        assert float((x * gradient).sum() + found.sum()) == pytest.approx(value, abs=1e-12)


def contributions_of(function, *shape):
    """What biases of a function contribute to a weighed sum of its values, and these values."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(2)).double().requires_grad_()
    y, found = function(x), []
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).double()
    grad((y * weight).sum(), x, on_bias=lambda site, contribution: found.append(contribution))
    return found, weight


BIAS = nn.Parameter(torch.linspace(1, 2, D).double())


def test_rows_that_are_picked_twice_contribute_twice_where_they_come_from():
    first, second = torch.tensor([2, 0, 1]), torch.tensor([1, 0, 0])
    (found,), weight = contributions_of(lambda x: x[first][second] + BIAS, 3, D)
    each = (weight * BIAS).detach().sum(1)
    expected = torch.stack([each[0], torch.zeros(()).double(), each[1] + each[2]])
    torch.testing.assert_close(found.reshape(3, -1).sum(1), expected)


def test_rows_that_are_left_out_contribute_nothing():
    index = torch.tensor([[3, 0, 1, 2], [0, 2, 1, 3]])
    (found,), weight = contributions_of(lambda x: x.gather(1, index) + BIAS, 3, D)
    each = (weight * BIAS).detach().sum(1)
    torch.testing.assert_close(found.sum(1), torch.cat([each, torch.zeros(1).double()]))


def test_of_rows_whose_way_is_lost_the_sum_is_left():
    mix = torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, 1.0]]).double()
    order = torch.tensor([2, 0, 1])

    def mixed(x):
        rows = mix @ x[order]
        return (rows + BIAS) * 2.0 + BIAS

    found, weight = contributions_of(mixed, 3, D)
    assert [contribution.dim() for contribution in found] == [0, 0]
    total = (weight * BIAS).detach().sum()
    torch.testing.assert_close(torch.stack(found).sum(), 3 * total)


class Routed(nn.Module):
    def __init__(self, send):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, D, 4, 4).double(), nn.Linear(D, 2).double()
        self.mlps = nn.ModuleList(Experts(send) for _ in range(2))
        self.norm = nn.LayerNorm(D).double()

    def forward(self, images):
        x = self.stem(images).flatten(2).transpose(1, 2)
        for mlp in self.mlps:
            x = x + mlp(self.norm(x))
        return self.head(x.mean(1))


# Rows that are in order by chance are not seen to be sorted, but only where an image is alone.
CHUNKS = [(send, size) for send in WAYS for size in (1, 2, 5) if (send, size) != (sorted_rows, 1)]


@pytest.mark.parametrize(("send", "batch_size"), CHUNKS)
def test_maps_of_routed_models_do_not_depend_on_the_batch(send, batch_size):
    images = torch.randn(5, 3, 8, 12, generator=torch.Generator().manual_seed(3)).double()
    expected = explain(Routed(nothing), images, reward="logit", target=1)
    found = explain(Routed(send), images, batch_size=batch_size, reward="logit", target=1)
    for name in ("attribution", "token_biases", "image_biases", "reward_sums"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=0, atol=1e-12
        )
