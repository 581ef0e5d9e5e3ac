"""Attributions of a batch by several methods under several rule sets, from one forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from libragrad_lightning.attribution.attention_methods import needs_attention
from libragrad_lightning.attribution.capture import Captured, capture
from libragrad_lightning.attribution.explanation import Explanation
from libragrad_lightning.attribution.gradient_methods import fullgrad_plus
from libragrad_lightning.attribution.methods import METHODS, Method
from libragrad_lightning.attribution.passes import ModelPasses
from libragrad_lightning.attribution.rewards import (
    Reward,
    log_odds,
    reward_function,
    reward_gradient,
)
from libragrad_lightning.attribution.targets import Target, target_classes
from libragrad_lightning.attribution.tasks import Task, task_of
from libragrad_lightning.backward import LIBRA, LibraGradError, RuleSet, UnknownPolicy
from libragrad_lightning.models import Recording, TokenModel, prefix_of

_EXCHANGED, _FINE = 1e-4, 1e-6
"""Residuals below this are rounding, in dtypes so fine; in others some cancel by chance."""


def explain_tokens(
    model: TokenModel,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    rules: Sequence[RuleSet] = (LIBRA,),
    method: Method = fullgrad_plus,
    target: Target = "predicted",
    reward: Reward = log_odds,
    task: Task | None = None,
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
        task: What the logits mean; by default they are classes, two of them if there is one logit.
        unknown: What to do about operations without a role.
    """
    explained = explain_methods(
        model,
        images,
        labels,
        rules=rules,
        methods={"": method},
        target=target,
        reward=reward,
        task=task,
        unknown=unknown,
    )
    return [by_method[""] for by_method in explained]


def explain_methods(
    model: TokenModel,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    rules: Sequence[RuleSet] = (LIBRA,),
    methods: Mapping[str, Method] = METHODS,
    target: Target = "predicted",
    reward: Reward = log_odds,
    task: Task | None = None,
    unknown: UnknownPolicy = "error",
) -> list[dict[str, Explanation]]:
    """Explain a batch by several methods, which share the forward pass and the gradients.

    Call it inside `libragrad_lightning.models.explanation_state`, which puts the model in order.

    Args:
        model: The model and its tokens.
        images: `[B, C, H, W]`.
        labels: Class indices `[B]`, needed if the target is ``"label"``.
        rules: The rule sets.
        methods: The attribution methods, by name.
        target: The classes to explain.
        reward: What is differentiated. Completeness is always measured on the logit.
        task: What the logits mean; by default they are classes, two of them if there is one logit.
        unknown: What to do about operations without a role.

    Returns:
        For every rule set the explanations by the names of the methods.
    """
    images = images.as_subclass(Tensor)  # Leaves of other classes are hidden from the graph.
    recording = model.record(images)
    task = task or task_of(recording.logits)
    classes = target_classes(target, recording.logits.detach(), labels, task)
    attention = any(needs_attention(method) for method in methods.values())
    job = _ExplanationJob(model, images, classes, reward, attention)
    of_logit, explained = reward_function("logit", task), []
    for rule_set in rules:
        by_logit = job.captured(recording, rule_set, of_logit, unknown)
        captured = (
            by_logit if reward is of_logit else job.captured(recording, rule_set, reward, "ignore")
        )
        view, fullgrad_sums = recording.views[0], by_logit.fullgrad_sums()
        _check_not_exchanged(fullgrad_sums - of_logit(recording.logits.detach(), classes))
        explanations = {}
        for name, method in methods.items():
            tokens = method(captured)
            explanations[name] = Explanation(
                rules=rule_set,
                attribution=view.on_grid(tokens),
                prefix=prefix_of(view, tokens),
                token_biases=captured.token_biases[0],
                image_biases=captured.image_biases[0],
                fullgrad_sums=fullgrad_sums,
                logits=recording.logits.detach(),
                target=classes,
                task=task,
            )
        explained.append(explanations)
    return explained


def _check_not_exchanged(residuals: Tensor) -> None:
    """Refuse residuals `[L, B]` that cancel over the images: parts of one were given to another.

    Raises:
        LibraGradError: Advises to explain the images one by one.
    """
    if torch.finfo(residuals.dtype).eps > _FINE:
        return
    exchanged = residuals.abs().sum(1)
    left = residuals.sum(1).abs()
    if len(residuals[0]) > 1 and bool(((exchanged > _EXCHANGED) & (left < 1e-6 * exchanged)).any()):
        raise LibraGradError(
            "The images of a batch are mixed in this model, so that contributions of one were "
            "given to another; pass `batch_size=1`."
        )


@dataclass(frozen=True)
class _ExplanationJob:
    """One batch to explain: what is differentiated, and at which classes."""

    model: TokenModel
    images: Tensor
    classes: Tensor
    reward: Reward
    attention: bool

    def captured(
        self, recording: Recording, rules: RuleSet, reward: Reward, unknown: UnknownPolicy
    ) -> Captured:
        """Differentiate a recorded forward pass."""
        passes = ModelPasses(self.model, self.images, self.classes, reward, rules, recording)
        return capture(
            recording,
            reward_gradient(recording.logits.detach(), self.classes, reward),
            rules,
            retain_graph=True,
            unknown=unknown,
            attention=self.attention and reward is self.reward,
            passes=passes,
        )
