"""Rewards: the scalar per image whose gradient an explanation is made of.

A reward is a function of logits and target classes. It stays outside of the ruled graph: its
ordinary gradient with respect to the logits is what the rule set passes down. A head with one logit
is that of a sigmoid: its classes are 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor

from libragrad_lightning.attribution.targets import class_logits

Reward: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Logits `[B, C]` and target classes `[B]` (int64) to rewards `[B]`."""


def logit(logits: Tensor, target: Tensor) -> Tensor:
    """Return the target's logit `[B]`; completeness is measured on it.

    The only logit of a head is that of class 1; class 0 has its negative.
    """
    return log_odds(logits, target) if logits.shape[1] == 1 else _at(logits, target)


def probability(logits: Tensor, target: Tensor) -> Tensor:
    """Return the target's softmax (or sigmoid) probability `[B]`, the reward of the paper's maps.

    Its gradient underflows to zero where the probability rounds to one; `log_odds` ranks the same
    and does not.
    """
    return _at(class_logits(logits).softmax(1), target)


def log_odds(logits: Tensor, target: Tensor) -> Tensor:
    """Return log p_t / (1 - p_t) `[B]`: the target's logit less the logsumexp of the others.

    Its gradient is that of the probability divided by p_t (1 - p_t), a positive number per image.
    """
    of_classes = class_logits(logits)
    others = of_classes.scatter(1, target[:, None], float("-inf"))
    return _at(of_classes, target) - others.logsumexp(1)


REWARDS: Mapping[str, Reward] = MappingProxyType(
    {"logit": logit, "probability": probability, "log_odds": log_odds}
)
"""The rewards that can be named in a configuration file."""


def reward_function(reward: str | Reward) -> Reward:
    """Return the reward of that name, or the function itself.

    Raises:
        ValueError: If there is no reward of that name.
    """
    if callable(reward):
        return reward
    if reward not in REWARDS:
        raise ValueError(f"Unknown reward {reward!r}; `reward` takes one of {sorted(REWARDS)}.")
    return REWARDS[reward]


def reward_gradient(logits: Tensor, target: Tensor, reward: Reward) -> Tensor:
    """Return the ordinary gradient `[B, C]` of the summed rewards with respect to the logits."""
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(reward(leaf, target).sum(), leaf)
    return gradient


def _at(values: Tensor, target: Tensor) -> Tensor:
    return values.gather(1, target[:, None])[:, 0]
