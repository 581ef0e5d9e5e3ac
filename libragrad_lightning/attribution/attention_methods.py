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
    """AttCAT: sum_{l < L-1} mean(A_l, heads and queries) sum_c h_{l+1} g_{l+1} (Qiang 2022).

    Raises:
        LibraGradError: If there is one block, or the number of tokens changes between blocks.
    """
    levels = range(len(captured.features) - 1)
    if not levels:
        raise LibraGradError(
            "AttCAT weighs the tokens that enter a block by the attention of the block before, but "
            "this model has one block; choose another `method`, such as 'fullgrad_plus'."
        )
    _check_same_tokens(captured)
    received = [attention.weights.mean((1, 2)) for attention in captured.attention]
    return torch.stack([received[i] * captured.input_x_gradient(i + 1) for i in levels]).sum(0)


@reads_attention
def raw_attention(captured: Captured) -> Tensor:
    """RawAtt: the class token's row of the last attention, mean over heads.

    Raises:
        LibraGradError: If there is no class token.
    """
    last = len(captured.features) - 1
    return class_row(captured, captured.attention[last].weights.mean(1), last)


@reads_attention
def attention_rollout(captured: Captured) -> Tensor:
    """Attention Rollout: the product of A_l / 2 + I / 2, mean over heads (Abnar & Zuidema 2020).

    Raises:
        LibraGradError: If there is no class token, or the number of tokens changes between blocks.
    """
    return _rollout(captured, [attention.weights.mean(1) for attention in captured.attention])


@reads_attention
def genatt(captured: Captured) -> Tensor:
    """GenAtt: rollout of mean_heads ReLU(A_l dA_l) (Chefer et al. 2021b).

    Not linear in the gradient: use the reward `probability` to match the paper.

    Raises:
        LibraGradError: If there is no class token, or the number of tokens changes between blocks.
    """
    return _rollout(captured, _positive_products(captured))


@reads_attention
def gradsam(captured: Captured) -> Tensor:
    """Grad-SAM: the class token's row of sum_l mean_heads ReLU(A_l dA_l) (Barkan et al. 2021).

    Raises:
        LibraGradError: If there is no class token.
    """
    products = enumerate(_positive_products(captured))
    return torch.stack([class_row(captured, matrix, level) for level, matrix in products]).sum(0)


def class_row(captured: Captured, matrix: Tensor, level: int = 0) -> Tensor:
    """Return the first row `[B, T_l]` of a matrix, that of the class token, on the first level.

    Args:
        captured: The material of the explanation.
        matrix: `[B, T_l, T_l]`.
        level: The level of its tokens.

    Returns:
        `[B, T_0]`; where the grids differ, values are spread and their sums preserved.

    Raises:
        LibraGradError: If the level has no class token.
    """
    check_class_token(captured, level)
    return captured.on_first_level(level, matrix[:, 0])


def check_class_token(captured: Captured, level: int = 0) -> None:
    """Check that the first token of a level is no patch.

    Raises:
        LibraGradError: If it is one.
    """
    if captured.views[level].prefix == 0:
        raise LibraGradError(
            "This method reads the class token's row of the attention, but the model has no class "
            "token; choose another `method`, such as 'fullgrad_plus'."
        )


def _check_same_tokens(captured: Captured) -> None:
    lengths = list(dict.fromkeys(view.length for view in captured.views))
    if len(lengths) > 1:
        raise LibraGradError(
            "This method follows every token through all blocks, but the number of tokens changes "
            f"({lengths}); choose another `method`, such as 'fullgrad_plus'."
        )


def _positive_products(captured: Captured) -> list[Tensor]:
    return [(a.weights * a.gradients).relu().mean(1) for a in captured.attention]


def _rollout(captured: Captured, matrices: list[Tensor]) -> Tensor:
    check_class_token(captured)
    _check_same_tokens(captured)
    identity = torch.eye(matrices[0].shape[-1], dtype=matrices[0].dtype, device=matrices[0].device)
    product = identity.expand_as(matrices[0])
    for matrix in matrices:
        product = 0.5 * (matrix + identity) @ product
    return class_row(captured, product)
