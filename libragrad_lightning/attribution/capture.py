"""What the attribution methods work on: features, their gradients and the bias contributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from libragrad_lightning.attribution.attention import Attention, AttentionLedger
from libragrad_lightning.attribution.biases import BiasLedger
from libragrad_lightning.attribution.passes import NoPasses, Passes
from libragrad_lightning.attribution.queries import QueriesAndKeys, QueryWatch
from libragrad_lightning.backward import LIBRA, LibraGradError, RuleSet, UnknownPolicy, grad
from libragrad_lightning.backward.attention_watch import AttentionWatch
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
        gradients: L tensors dF/dh_l `[B, T_l, D_l]` under a rule set, or empty if the method reads
            none.
        products: L tensors `[B, T_l]`: input x gradient of every level, summed over channels.
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
    products: Sequence[Tensor]
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
        return self.products[level]

    def on_first_level(self, level: int, values: Tensor) -> Tensor:
        """Move values `[B, T_l]` of a level to the tokens of z0, `[B, T_0]`."""
        return self.views[level].moved(values, self.views[0])

    def fullgrad_sums(self) -> Tensor:
        """Return `[L, B]`: the sum of the FullGrad decomposition at every level.

        Under a complete rule set each row equals the combination of logits sum_c r_c z_c, r the
        gradient of the reward: the target's logit, if that is the reward.
        """
        inputs = torch.stack([product.sum(1) for product in self.products])
        return inputs + self.token_biases.sum(2) + self.image_biases

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
    gradients: bool = True,
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
        gradients: Whether to keep the gradients of all levels; without them, input x gradient is
            all that is known of them.
        passes: Other passes of the model, for methods that need them.

    Raises:
        LibraGradError: If attention is wanted and a block has none over all tokens.
    """
    views = recording.views
    batch = len(recording.logits)
    ledger = BiasLedger(batch, views, recording.image_axes, recording.token_layouts)
    attentions, queries = AttentionLedger(batch, views), QueryWatch(batch, views)
    explained = [part for features in recording.features for part in parts_of(features)]
    levels = _Levels(views, explained)
    found = grad(
        recording.logits,
        explained,
        logit_gradient,
        rules=rules,
        retain_graph=retain_graph,
        unknown=unknown,
        on_bias=ledger if biases else None,
        watch=[AttentionWatch(attentions), queries] if attention else [],
        keep=None if gradients else levels.product,
    )
    like = recording.logits.detach()
    products = list(map(levels.product, range(len(found)), found)) if gradients else found
    return Captured(
        features=levels.tokens(explained),
        gradients=levels.tokens(found) if gradients else (),
        products=levels.joined(products),
        views=views,
        biases=Biases(ledger.on_tokens(like), ledger.on_images(like)) if biases else None,
        mid_residuals=[None if m is None else _detached(m) for m in recording.mid_residuals],
        output=_detached(recording.output),
        passes=cast("Passes", NoPasses()) if passes is None else passes,
        attention=attentions.by_level(ledger.disordered) if attention else (),
        queries=queries.of_last() if attention else None,
    )


@dataclass(frozen=True)
class _Levels:
    """The explained tensors of all levels, each as many as the model has passes.

    Attributes:
        views: How to read each level.
        explained: The tensors.
    """

    views: Sequence[View]
    explained: Sequence[Tensor]

    def product(self, number: int, gradient: Tensor) -> Tensor:
        """Return input x gradient of one of the tensors by token, `[B, T]`."""
        level, of_pass = divmod(number, self._passes)
        view = self.views[level].passes[of_pass]
        return (view.tokens(self.explained[number].detach()) * view.tokens(gradient)).sum(-1)

    def tokens(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Return the tokens `[B, T_l, D_l]` of every level, from the tensors of all its passes."""
        return [
            view.tokens(joined_features([part.detach() for part in of_level]))
            for view, of_level in zip(self.views, self._by_level(parts), strict=True)
        ]

    def joined(self, products: Sequence[Tensor]) -> list[Tensor]:
        """Return `[B, T_l]` of every level, from the products of all its passes."""
        return [torch.cat(tuple(of_level), 1) for of_level in self._by_level(products)]

    @property
    def _passes(self) -> int:
        return len(self.views[0].passes)

    def _by_level(self, parts: Sequence[Tensor]) -> list[Sequence[Tensor]]:
        count = self._passes
        return [parts[i * count : (i + 1) * count] for i in range(len(self.views))]


def _detached(features: Features) -> Features:
    return joined_features([part.detach() for part in parts_of(features)])
