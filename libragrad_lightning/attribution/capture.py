"""What the attribution methods work on: features, their gradients and the bias contributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from libragrad_lightning.attribution.attention import Attention, AttentionLedger
from libragrad_lightning.attribution.biases import BiasLedger
from libragrad_lightning.backward import LIBRA, AttentionWatch, RuleSet, UnknownPolicy, grad
from libragrad_lightning.models import Recording


@dataclass(frozen=True)
class Captured:
    """The material of one explanation, for L explained tensors (z0 and the block inputs).

    Attributes:
        features: L tensors h_l `[B, T, D]`; h_0 is z0.
        gradients: L tensors dF/dh_l `[B, T, D]` under a rule set.
        token_biases: `[L, B, T]`: contributions of the biases at or after level l, by token.
        image_biases: `[L, B]`: contributions of the biases at or after level l that belong to no
            token (pooling norms and the head).
        num_prefix_tokens: How many leading tokens are not patches.
        attention: One per level, or empty if the method did not ask for it.
    """

    features: Sequence[Tensor]
    gradients: Sequence[Tensor]
    token_biases: Tensor
    image_biases: Tensor
    num_prefix_tokens: int = 0
    attention: Sequence[Attention] = ()

    def input_x_gradient(self, level: int) -> Tensor:
        """Return sum_c h_l * dF/dh_l, `[B, T]`."""
        return (self.features[level] * self.gradients[level]).sum(-1)

    def fullgrad_sums(self) -> Tensor:
        """Return `[L, B]`: the sum of the FullGrad decomposition at every level.

        Under a complete rule set each row equals the target's logit.
        """
        inputs = torch.stack(
            [self.input_x_gradient(level).sum(1) for level in range(len(self.features))]
        )
        return inputs + self.token_biases.sum(2) + self.image_biases


def capture(
    recording: Recording,
    logit_gradient: Tensor,
    rules: RuleSet = LIBRA,
    *,
    retain_graph: bool = False,
    unknown: UnknownPolicy = "error",
    attention: bool = False,
) -> Captured:
    """Differentiate a recorded forward pass under a rule set.

    Args:
        recording: The recorded forward pass.
        logit_gradient: The gradient of the reward with respect to the logits, `[B, C]`.
        rules: The rule set.
        retain_graph: Whether the recording is to be differentiated again.
        unknown: What to do about operations without a role.
        attention: Whether to capture the attention matrices and their gradients.

    Raises:
        LibraGradError: If attention is wanted and a block has none over all tokens.
    """
    z0 = recording.features[0]
    size = (z0.shape[0], z0.shape[1], len(recording.features))
    ledger, attentions = BiasLedger(*size), AttentionLedger(*size)
    gradients = grad(
        recording.logits,
        recording.features,
        logit_gradient,
        rules=rules,
        retain_graph=retain_graph,
        unknown=unknown,
        on_bias=ledger,
        watch=[AttentionWatch(attentions)] if attention else [],
    )
    return Captured(
        features=[feature.detach() for feature in recording.features],
        gradients=gradients,
        token_biases=ledger.on_tokens(z0.detach()),
        image_biases=ledger.on_images(z0.detach()),
        num_prefix_tokens=recording.num_prefix_tokens,
        attention=attentions.by_level() if attention else (),
    )
