"""Attribution methods that need attention matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from libragrad_lightning.attribution.capture import Captured
from libragrad_lightning.backward import LibraGradError

_READS_ATTENTION = "reads_attention"

_Method = TypeVar("_Method", bound=Callable[[Captured], Tensor])


def reads_attention(method: _Method) -> _Method:
    """Mark a method that needs `Captured.attention`; use it as a decorator."""
    vars(method)[_READS_ATTENTION] = True
    return method


def needs_attention(method: Callable[[Captured], Tensor]) -> bool:
    """Return whether attention matrices must be captured for a method."""
    return getattr(method, _READS_ATTENTION, False)


@reads_attention
def attcat(captured: Captured) -> Tensor:
    """AttCAT: sum_{l < L-1} mean(A_l, heads and queries) sum_c h_{l+1} g_{l+1} (Qiang 2022)."""
    received = [attention.weights.mean((1, 2)) for attention in captured.attention]
    levels = range(len(captured.features) - 1)
    return torch.stack([received[i] * captured.input_x_gradient(i + 1) for i in levels]).sum(0)


@reads_attention
def raw_attention(captured: Captured) -> Tensor:
    """RawAtt: the class token's row of the last attention, mean over heads."""
    return class_row(captured, captured.attention[-1].weights.mean(1))


@reads_attention
def attention_rollout(captured: Captured) -> Tensor:
    """Attention Rollout: the product of A_l / 2 + I / 2, mean over heads (Abnar & Zuidema 2020)."""
    return _rollout(captured, [attention.weights.mean(1) for attention in captured.attention])


@reads_attention
def genatt(captured: Captured) -> Tensor:
    """GenAtt: rollout of mean_heads ReLU(A_l dA_l) (Chefer et al. 2021b).

    Not linear in the gradient: use the reward `probability` to match the paper.
    """
    return _rollout(captured, _positive_products(captured))


@reads_attention
def gradsam(captured: Captured) -> Tensor:
    """Grad-SAM: the class token's row of sum_l mean_heads ReLU(A_l dA_l) (Barkan et al. 2021)."""
    return class_row(captured, torch.stack(_positive_products(captured)).sum(0))


def class_row(captured: Captured, matrix: Tensor) -> Tensor:
    """Return the first row `[B, T]` of a matrix `[B, T, T]`, that of the class token.

    Raises:
        LibraGradError: If the model has no class token.
    """
    if captured.num_prefix_tokens == 0:
        raise LibraGradError(
            "This method reads the class token's row of the attention, but the model has no class "
            "token; choose another `method`, such as 'attcat' or 'fullgrad_plus'."
        )
    return matrix[:, 0]


def _positive_products(captured: Captured) -> list[Tensor]:
    return [(a.weights * a.gradients).relu().mean(1) for a in captured.attention]


def _rollout(captured: Captured, matrices: list[Tensor]) -> Tensor:
    identity = torch.eye(matrices[0].shape[-1], dtype=matrices[0].dtype, device=matrices[0].device)
    product = identity.expand_as(matrices[0])
    for matrix in matrices:
        product = 0.5 * (matrix + identity) @ product
    return class_row(captured, product)
