"""What the attribution methods work on: features, their gradients and the bias contributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from libragrad_lightning.attribution.attention import Attention, AttentionLedger
from libragrad_lightning.attribution.biases import BiasLedger
from libragrad_lightning.attribution.passes import NoPasses, Passes
from libragrad_lightning.attribution.queries import QueriesAndKeys, QueryWatch
from libragrad_lightning.backward import (
    LIBRA,
    AttentionWatch,
    LibraGradError,
    RuleSet,
    UnknownPolicy,
    grad,
)
from libragrad_lightning.models import Features, Recording, View, joined_features, parts_of


@dataclass(frozen=True)
class Biases:
    """What biases contribute.

    Attributes:
        by_token: `[L, B, T_0]`: those at or after level l, by token.
        by_image: `[L, B]`: those at or after level l that belong to no token (pooling norms and
            the head).
    """

    by_token: Tensor
    by_image: Tensor


@dataclass(frozen=True)
class Captured:
    """The material of one explanation, for L explained tensors (z0 and the block inputs).

    Feature maps are given as the sequences of their cells, row by row.

    Attributes:
        features: L tensors h_l `[B, T_l, D_l]`; h_0 is z0.
        gradients: L tensors dF/dh_l `[B, T_l, D_l]` under a rule set.
        views: How the tokens of each level lie in the image.
        biases: What biases contribute, or None if the method does not read it.
        mid_residuals: The features after the first residual connection of every block, None where
            a block has no such place; in the axes of the model.
        output: What the last block returned, in the axes of the model.
        passes: Other passes of the model, for methods that need them.
        queries: Query and key of the last block, or None if the method did not ask for attention.
        attention: One per level, or empty if the method did not ask for it.
    """

    features: Sequence[Tensor]
    gradients: Sequence[Tensor]
    views: Sequence[View]
    biases: Biases | None
    mid_residuals: Sequence[Features | None]
    output: Features
    passes: Passes
    attention: Sequence[Attention] = ()
    queries: QueriesAndKeys | None = None

    @property
    def num_prefix_tokens(self) -> int:
        """How many tokens of z0 lie nowhere in the image."""
        return self.views[0].prefix

    @property
    def token_biases(self) -> Tensor:
        """The contributions of the biases at or after level l by token, `[L, B, T_0]`."""
        return self._gathered().by_token

    @property
    def image_biases(self) -> Tensor:
        """The contributions of the biases at or after level l that belong to no token, `[L, B]`."""
        return self._gathered().by_image

    def input_x_gradient(self, level: int) -> Tensor:
        """Return sum_c h_l * dF/dh_l, `[B, T_l]`."""
        return self._products[level]

    def on_first_level(self, level: int, values: Tensor) -> Tensor:
        """Move values `[B, T_l]` of a level to the tokens of z0, `[B, T_0]`."""
        return self.views[level].moved(values, self.views[0])

    def fullgrad_sums(self) -> Tensor:
        """Return `[L, B]`: the sum of the FullGrad decomposition at every level.

        Under a complete rule set each row equals the combination of logits sum_c r_c z_c, r the
        gradient of the reward: the target's logit, if that is the reward.
        """
        inputs = torch.stack([product.sum(1) for product in self._products])
        return inputs + self.token_biases.sum(2) + self.image_biases

    @cached_property
    def _products(self) -> list[Tensor]:
        pairs = zip(self.features, self.gradients, strict=True)
        return [(features * gradients).sum(-1) for features, gradients in pairs]

    def _gathered(self) -> Biases:
        if self.biases is None:
            raise LibraGradError(
                "What biases contribute was not gathered; pass `biases=True` to `capture`."
            )
        return self.biases


def capture(
    recording: Recording,
    logit_gradient: Tensor,
    rules: RuleSet = LIBRA,
    *,
    retain_graph: bool = False,
    unknown: UnknownPolicy = "error",
    biases: bool = True,
    attention: bool = False,
    passes: Passes | None = None,
) -> Captured:
    """Differentiate a recorded forward pass under a rule set.

    Args:
        recording: The recorded forward pass.
        logit_gradient: The gradient of the reward with respect to the logits, `[B, C]`.
        rules: The rule set.
        retain_graph: Whether the recording is to be differentiated again.
        unknown: What to do about operations without a role.
        biases: Whether to gather what biases contribute.
        attention: Whether to capture the attention matrices and their gradients.
        passes: Other passes of the model, for methods that need them.

    Raises:
        LibraGradError: If attention is wanted and a block has none over all tokens.
    """
    views = recording.views
    batch = len(recording.logits)
    ledger = BiasLedger(batch, views, recording.image_axes, recording.token_layouts)
    attentions, queries = AttentionLedger(batch, views), QueryWatch(batch, views)
    explained = [part for features in recording.features for part in parts_of(features)]
    gradients = grad(
        recording.logits,
        explained,
        logit_gradient,
        rules=rules,
        retain_graph=retain_graph,
        unknown=unknown,
        on_bias=ledger if biases else None,
        watch=[AttentionWatch(attentions), queries] if attention else [],
    )
    like = recording.logits.detach()
    return Captured(
        features=_by_level(views, [part.detach() for part in explained]),
        gradients=_by_level(views, gradients),
        views=views,
        biases=Biases(ledger.on_tokens(like), ledger.on_images(like)) if biases else None,
        mid_residuals=[None if m is None else _detached(m) for m in recording.mid_residuals],
        output=_detached(recording.output),
        passes=cast("Passes", NoPasses()) if passes is None else passes,
        attention=attentions.by_level(ledger.disordered) if attention else (),
        queries=queries.of_last() if attention else None,
    )


def _by_level(views: Sequence[View], parts: Sequence[Tensor]) -> list[Tensor]:
    """Return the tokens `[B, T_l, D_l]` of every level, from the tensors of all its passes."""
    passes = len(views[0].passes)
    return [
        view.tokens(joined_features(parts[i * passes : (i + 1) * passes]))
        for i, view in enumerate(views)
    ]


def _detached(features: Features) -> Features:
    return joined_features([part.detach() for part in parts_of(features)])
