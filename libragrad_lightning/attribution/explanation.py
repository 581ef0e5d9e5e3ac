"""`explain_tokens`: attributions of a batch under several rule sets from one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from libragrad_lightning.attribution.capture import capture
from libragrad_lightning.attribution.methods import Method, fullgrad_plus, needs_attention
from libragrad_lightning.attribution.rewards import Reward, log_odds, logit, reward_gradient
from libragrad_lightning.attribution.targets import Target, target_classes
from libragrad_lightning.backward import LIBRA, RuleSet, UnknownPolicy
from libragrad_lightning.models import TokenModel


@dataclass(frozen=True)
class Explanation:
    """The explanation of a batch under one rule set.

    Attributes:
        rules: The rule set.
        attribution: Signed map over patches `[B, h, w]`.
        prefix: Attributions of the prefix tokens `[B, P]`.
        fullgrad_sums: `[L, B]`, the FullGrad sums of the target's logit at every level; each row is
            the logit if the rule set is complete.
        logits: `[B, C]`.
        target: The explained classes `[B]`.
    """

    rules: RuleSet
    attribution: Tensor
    prefix: Tensor
    fullgrad_sums: Tensor
    logits: Tensor
    target: Tensor

    @property
    def target_logit(self) -> Tensor:
        """The explained logits `[B]`."""
        return logit(self.logits, self.target)

    def heatmap(self, size: tuple[int, int]) -> Tensor:
        """Return the signed map upsampled bicubically to `[B, H, W]`, as the paper scores it."""
        resized = F.interpolate(
            self.attribution[:, None], size=size, mode="bicubic", align_corners=False
        )
        return resized[:, 0]


def explain_tokens(
    model: TokenModel,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    rules: Sequence[RuleSet] = (LIBRA,),
    method: Method = fullgrad_plus,
    target: Target = "predicted",
    reward: Reward = log_odds,
    unknown: UnknownPolicy = "error",
) -> list[Explanation]:
    """Explain a batch under several rule sets, from one forward pass.

    Call it inside `libragrad_lightning.models.explanation_state`, which puts the model in order.

    Args:
        model: The model and its tokens.
        images: `[B, C, H, W]`.
        labels: Class indices `[B]`, needed if the target is ``"label"``.
        rules: The rule sets, one explanation each.
        method: The attribution method.
        target: The classes to explain.
        reward: What is differentiated. Completeness is always measured on the logit.
        unknown: What to do about operations without a role.
    """
    recording = model.record(images)
    logits = recording.logits.detach()
    classes = target_classes(target, logits, labels)
    of_reward = reward_gradient(logits, classes, reward)
    of_logit = reward_gradient(logits, classes, logit)
    grid = model.grid(images, recording.features[0].shape[1])
    prefix = model.layout.num_prefix_tokens
    explanations: list[Explanation] = []
    for rule_set in rules:
        checked = capture(
            recording,
            of_logit,
            rule_set,
            retain_graph=True,
            unknown=unknown,
            attention=needs_attention(method) and reward is logit,
        )
        mapped = (
            checked
            if reward is logit
            else capture(
                recording,
                of_reward,
                rule_set,
                retain_graph=True,
                unknown="ignore",
                attention=needs_attention(method),
            )
        )
        tokens = method(mapped)
        explanations.append(
            Explanation(
                rules=rule_set,
                attribution=tokens[:, prefix:].unflatten(1, grid),
                prefix=tokens[:, :prefix],
                fullgrad_sums=checked.fullgrad_sums(),
                logits=logits,
                target=classes,
            )
        )
    return explanations
