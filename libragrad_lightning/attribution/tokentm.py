"""TokenTM: rollout of attention weighted by how blocks transform their tokens (Wu et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from libragrad_lightning.attribution.attention_methods import (
    check_class_token,
    class_row,
    reads_attention,
)
from libragrad_lightning.attribution.capture import Captured
from libragrad_lightning.backward import LibraGradError


@reads_attention
def tokentm(captured: Captured) -> Tensor:
    """TokenTM: the class token's row of the product of all blocks' token transformations.

    C = diag(|h_0|); for every block with features h before, m after attention and h' after the MLP:
    C <- (I + W(m, h')) (I + (mean_heads(A) W(h, m)) * mean_heads(ReLU(dA))) C, where W(x, y) is
    diagonal, |y| / |x| times the softmax over tokens of cos(x, y).

    Not linear in the gradient: use the reward `probability` to match the paper.

    Raises:
        LibraGradError: If the model has no class token, its tokens change in number or width, or a
            block has no residual connection between attention and MLP.
    """
    check_class_token(captured)
    states = (*captured.features, captured.views[-1].tokens(captured.output))
    _check_same_shape(states)
    contribution = torch.diag_embed(states[0].norm(dim=-1))
    identity = torch.eye(contribution.shape[-1]).to(contribution)
    for level, attention in enumerate(captured.attention):
        before, after = states[level], states[level + 1]
        mid_residual = captured.mid_residuals[level]
        if mid_residual is None:
            raise LibraGradError(
                f"TokenTM needs blocks with one residual connection around the attention and one "
                f"around the MLP, but block {level} is built otherwise; choose another `method`, "
                "such as 'genatt' or 'fullgrad_plus'."
            )
        mid_residual = captured.views[level].tokens(mid_residual)
        mixing = attention.weights.mean(1) * _transformation(before, mid_residual)[:, None, :]
        attended = identity + mixing * attention.gradients.relu().mean(1)
        mapped = identity + torch.diag_embed(_transformation(mid_residual, after))
        contribution = mapped @ attended @ contribution
    return class_row(captured, contribution)


def _check_same_shape(states: Sequence[Tensor]) -> None:
    shapes = list(dict.fromkeys(tuple(state.shape[1:]) for state in states))
    if len(shapes) > 1:
        raise LibraGradError(
            "TokenTM compares every token before and after each block, but the tokens change in "
            f"number or width ([T, D] is {shapes}); choose another `method`, such as "
            "'fullgrad_plus'."
        )


def _transformation(before: Tensor, after: Tensor) -> Tensor:
    """Return the diagonal `[B, T]` of W(before, after)."""
    length = after.norm(dim=-1) / (before.norm(dim=-1) + 1e-8)
    return length * F.cosine_similarity(before, after, dim=-1).softmax(-1)
