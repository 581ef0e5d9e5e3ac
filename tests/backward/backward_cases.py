"""What the engine's tests share: random leaves, scaled gradients, the comparison with a reference.

A reference is ordinary forward code in which `detach` and `scaled` say what the rule should do; it
is differentiated by `torch.autograd.grad` alone.
"""

from collections.abc import Callable, Sequence

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from libragrad_lightning.backward import LIBRA, RuleSet, grad
from libragrad_lightning.backward.biases import BiasSite

SEEDS = st.integers(0, 2**16)
FEW = settings(deadline=None, max_examples=10, derandomize=True)
"""For the tests that draw shapes and seeds."""

Forward = Callable[..., Tensor]


def leaves(seed: int, *shapes: Sequence[int]) -> tuple[Tensor, ...]:
    """Return normally distributed float64 leaves of these shapes."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in shapes
    )


def scaled(value: Tensor, weight: float) -> Tensor:
    """Return the value itself, with its gradient times `weight`."""
    return weight * value + (1 - weight) * value.detach()


def ordinary_gradients(
    value: Tensor, inputs: Sequence[Tensor], cotangent: Tensor
) -> tuple[Tensor, ...]:
    """Differentiate by autograd alone; zeros where the value does not depend on an input."""
    if not value.requires_grad:
        return tuple(map(torch.zeros_like, inputs))
    return torch.autograd.grad(
        value, inputs, cotangent, retain_graph=True, allow_unused=True, materialize_grads=True
    )


def check(
    forward: Forward,
    reference: Forward,
    inputs: Sequence[Tensor],
    *,
    rules: RuleSet = LIBRA,
    rtol: float = 1e-10,
) -> None:
    """Assert that the engine differentiates `forward` as autograd differentiates `reference`."""
    value, expected_value = forward(*inputs), reference(*inputs)
    torch.testing.assert_close(value, expected_value, rtol=1e-10, atol=1e-12)
    cotangent = torch.randn(value.shape, dtype=value.dtype)
    got = grad(value, inputs, cotangent, rules=rules)
    expected = ordinary_gradients(expected_value, inputs, cotangent)
    for number, pair in enumerate(zip(got, expected, strict=True)):
        torch.testing.assert_close(
            *pair, rtol=rtol, atol=1e-12, msg=lambda text, i=number: f"input {i}: {text}"
        )


class BiasRecord:
    """A bias sink that keeps everything it receives."""

    def __init__(self) -> None:
        self.sites: list[BiasSite] = []
        self.contributions: list[Tensor] = []

    def __call__(self, site: BiasSite, contribution: Tensor) -> None:
        self.sites.append(site)
        self.contributions.append(contribution)

    def total(self, level: int = 0) -> Tensor:
        """Return the sum of the contributions that count at explained tensor `level`."""
        parts = [
            contribution.sum()
            for site, contribution in zip(self.sites, self.contributions, strict=True)
            if level in site.depends_on
        ]
        return torch.stack(parts).sum() if parts else torch.zeros((), dtype=torch.float64)


def fullgrad_sum(
    output: Tensor, inputs: Sequence[Tensor], rules: RuleSet = LIBRA
) -> tuple[Tensor, Tensor]:
    """Return the FullGrad sum of a scalar output over all inputs, and the sum of its magnitudes."""
    record = BiasRecord()
    gradients = grad(output, inputs, rules=rules, on_bias=record, retain_graph=True)
    parts = [x.detach() * g for x, g in zip(inputs, gradients, strict=True)]
    parts += record.contributions
    total = torch.stack([part.sum() for part in parts]).sum()
    return total, torch.stack([part.abs().sum() for part in parts]).sum()


def total_by_leaves(
    output: Tensor, inputs: Sequence[Tensor], biases: Sequence[Tensor], rules: RuleSet = LIBRA
) -> Tensor:
    """Return sum <b, dF/db> over leaves b that are added, from their gradients in the same graph.

    It needs no site, shape or sign of a bias, and so checks `BiasRecord.total` independently.
    Implicit biases of batch norms, buffers and held values are not among the leaves.
    """
    gradients = grad(output, inputs, rules=rules, observed=biases, retain_graph=True)
    pairs = zip(biases, gradients[len(inputs) :], strict=True)
    return torch.stack([(bias.detach() * gradient).sum() for bias, gradient in pairs]).sum()
