"""Rewards: the scalar per image whose gradient an explanation is made of.

A reward is a function of logits and target classes. It stays outside of the ruled graph: its
ordinary gradient with respect to the logits is what the rule set passes down. What a name stands
for depends on the task; `logit` is what completeness is measured on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor

from libragrad_lightning.attribution.tasks import Task, class_logits
from libragrad_lightning.lookup import named

Reward: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Logits `[B, C]` and target classes `[B]` (int64) to rewards `[B]`."""


def output(logits: Tensor, target: Tensor) -> Tensor:
    """Return what the head says of the target `[B]`: its logit, or the quantity that it predicts.

    It is also the log-odds of a label under a sigmoid of its own.
    """
    return logits.gather(1, target[:, None])[:, 0]


def logit(logits: Tensor, target: Tensor) -> Tensor:
    """Return the target's logit `[B]`; completeness is measured on it.

    The only logit of a head is that of class 1; class 0 has its negative.
    """
    return log_odds(logits, target) if logits.shape[1] == 1 else output(logits, target)


def probability(logits: Tensor, target: Tensor) -> Tensor:
    """Return the target's softmax (or sigmoid) probability `[B]`, the reward of the paper's maps.

    Its gradient underflows to zero where the probability rounds to one; `log_odds` ranks the same
    and does not.
    """
    return output(class_logits(logits).softmax(1), target)


def label_probability(logits: Tensor, target: Tensor) -> Tensor:
    """Return the probability `[B]` of a label under a sigmoid of its own."""
    return output(logits, target).sigmoid()


def log_odds(logits: Tensor, target: Tensor) -> Tensor:
    """Return log p_t / (1 - p_t) `[B]`: the target's logit less the logsumexp of the others.

    Its gradient is that of the probability divided by p_t (1 - p_t), a positive number per image.
    """
    of_classes = class_logits(logits)
    others = of_classes.scatter(1, target[:, None], float("-inf"))
    return output(of_classes, target) - others.logsumexp(1)


REWARDS: Mapping[str, Reward] = MappingProxyType(
    {"logit": logit, "probability": probability, "log_odds": log_odds}
)
"""The rewards of classes that exclude each other, by the names that configuration files use."""

_OF_CLASSES = ("multiclass", "binary")
_OF_LABELS: Mapping[str, Reward] = MappingProxyType(
    {"logit": output, "probability": label_probability, "log_odds": output}
)
_OF_QUANTITIES: Mapping[str, Reward] = MappingProxyType({"logit": output, "log_odds": output})


def reward_function(reward: str | Reward, task: Task = "multiclass") -> Reward:
    """Return the reward of that name, or the function itself.

    The log-odds of one label among several are its logit; a quantity is its own reward.

    Raises:
        ValueError: If there is no reward of that name, or a quantity has no probability.
    """
    if callable(reward):
        return reward
    of_classes = named(REWARDS, reward, "reward")
    if task in _OF_CLASSES:
        return of_classes
    fitting = _OF_LABELS if task == "multilabel" else _OF_QUANTITIES
    if reward not in fitting:
        raise ValueError(
            f"A {task} has no {reward}; `reward` takes one of {sorted(fitting)} there, or a "
            "function."
        )
    return fitting[reward]


def reward_gradient(logits: Tensor, target: Tensor, reward: Reward) -> Tensor:
    """Return the ordinary gradient `[B, C]` of the summed rewards with respect to the logits."""
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(reward(leaf, target).sum(), leaf)
    return gradient
