"""Attributions of a batch by several methods under several rule sets, from one forward pass."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from libragrad_lightning.attribution.attention_methods import needs_attention
from libragrad_lightning.attribution.capture import Captured, capture
from libragrad_lightning.attribution.explanation import OF_REWARD, Explanation, SumsOf
from libragrad_lightning.attribution.gradient_methods import fullgrad_plus
from libragrad_lightning.attribution.methods import (
    METHODS,
    Method,
    needs_biases,
    needs_gradients,
    needs_graph,
)
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
    sums: Collection[SumsOf] = OF_REWARD,
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
        reward: What is differentiated.
        task: What the logits mean; by default they are classes, two of them if there is one logit.
        sums: What attributions are added up for: the ``"reward"``, or the ``"logit"``, which takes
            a backward pass of its own for each rule set unless it is the reward, or both.
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
        sums=sums,
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
    sums: Collection[SumsOf] = OF_REWARD,
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
        reward: What is differentiated.
        task: What the logits mean; by default they are classes, two of them if there is one logit.
        sums: What attributions are added up for: the ``"reward"``, or the ``"logit"``, which takes
            a backward pass of its own for each rule set unless it is the reward, or both.
        unknown: What to do about operations without a role.

    Returns:
        For every rule set the explanations by the names of the methods.
    """
    images = images.as_subclass(Tensor)  # Leaves of other classes are hidden from the graph.
    recording = model.record(images)
    task = task or task_of(recording.logits)
    classes = target_classes(target, recording.logits.detach(), labels, task)
    job = _ExplanationJob(model, images, recording, classes, task, reward, unknown)
    # The last backward pass frees what was recorded as it goes.
    again = [True] * (len(rules) - 1) + [any(map(needs_graph, methods.values()))]
    found = []
    for pair in zip(rules, again, strict=True):
        found.append(job.explanations(methods, sums, *pair))
    return found


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
    """One recorded batch to explain: what is differentiated, and at which classes."""

    model: TokenModel
    images: Tensor
    recording: Recording
    classes: Tensor
    task: Task
    reward: Reward
    unknown: UnknownPolicy

    def explanations(
        self,
        methods: Mapping[str, Method],
        sums: Collection[SumsOf],
        rules: RuleSet,
        retain_graph: bool,
    ) -> dict[str, Explanation]:
        """Return the explanations under one rule set by the names of the methods."""
        of_logit, chosen = reward_function("logit", self.task), methods.values()
        again = "logit" in sums and self.reward is not of_logit
        adds_up = "reward" in sums or ("logit" in sums and not again)
        # Images that see each other are found by their biases.
        biases = adds_up or self.recording.mixes_images or any(map(needs_biases, chosen))
        logit_sums = None
        if again:
            of = self._gradient(of_logit)
            more = capture(
                self.recording, of, rules, retain_graph=True, unknown="ignore", gradients=False
            )
            logit_sums = self._sums(more, of_logit)
        captured = capture(
            self.recording,
            self._gradient(self.reward),
            rules,
            retain_graph=retain_graph,
            unknown=self.unknown,
            biases=biases,
            attention=any(map(needs_attention, chosen)),
            gradients=any(map(needs_gradients, chosen)),
            passes=ModelPasses(
                self.model, self.images, self.classes, self.reward, rules, self.recording
            ),
        )
        reward_sums = self._sums(captured, self.reward) if biases else None
        if self.reward is of_logit:
            logit_sums = reward_sums
        return {
            name: self._explanation(rules, captured, method(captured), logit_sums, reward_sums)
            for name, method in methods.items()
        }

    def _explanation(
        self,
        rules: RuleSet,
        captured: Captured,
        tokens: Tensor,
        logit_sums: Tensor | None,
        reward_sums: Tensor | None,
    ) -> Explanation:
        view, biases = captured.views[0], captured.biases
        return Explanation(
            rules=rules,
            attribution=view.on_grid(tokens),
            prefix=prefix_of(view, tokens),
            token_biases=None if biases is None else biases.by_token[0],
            image_biases=None if biases is None else biases.by_image[0],
            logit_sums=logit_sums,
            logits=self.recording.logits.detach(),
            target=self.classes,
            task=self.task,
            reward_sums=reward_sums,
            linear_reward=None if reward_sums is None else self._combination(self.reward),
            placement=self.model.placement(self.images),
        )

    def _sums(self, captured: Captured, reward: Reward) -> Tensor:
        """Return the FullGrad sums `[L, B]`, unless those of images were exchanged."""
        sums = captured.fullgrad_sums()
        _check_not_exchanged(sums - self._combination(reward))
        return sums

    def _combination(self, reward: Reward) -> Tensor:
        """Return the combination of logits `[B]` that is differentiated for a reward."""
        return (self._gradient(reward) * self.recording.logits.detach()).sum(1)

    def _gradient(self, reward: Reward) -> Tensor:
        return reward_gradient(self.recording.logits.detach(), self.classes, reward)
