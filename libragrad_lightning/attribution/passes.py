"""Forward and backward passes that some methods need beside those that were captured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from libragrad_lightning.attribution.attention import Attention, AttentionLedger, PoolingLedger
from libragrad_lightning.attribution.rewards import Reward, reward_gradient
from libragrad_lightning.backward import LibraGradError, RuleSet, grad
from libragrad_lightning.backward.attention_watch import AttentionWatch
from libragrad_lightning.models import (
    Recording,
    TokenModel,
    image_generators,
    inserted_patches,
    joined_features,
    logits_behind,
    logits_of_tokens_alone,
    parts_of,
)


class Passes(Protocol):
    """What methods may ask of the model, under the rules and the reward of the explanation."""

    def generators(self, seed: int) -> list[torch.Generator]:
        """Return for every image a source of random numbers, which its pixels determine."""
        ...

    def gradient_at(self, tokens: Tensor) -> Tensor:
        """Return the gradient of the reward at other tokens `[B, T_0, D_0]` in place of z0."""
        ...

    def gradient_behind(self, tokens: Tensor) -> tuple[Tensor, list[Attention]]:
        """Return the gradient of the reward at other tokens behind the last block.

        Args:
            tokens: `[N * B, T, D]`, in the order of the last level: N times those of all images.

        Returns:
            `[N * B, T, D]`, and the attention of queries of the head to the tokens, if there is
            any.
        """
        ...

    def attention_of(self, level: int, gradient: Tensor) -> Attention:
        """Return the attention of one block, with its gradient.

        Args:
            level: The number of the block.
            gradient: That of what the block returns, `[B, T, D]`.
        """
        ...

    def rewards_alone(self, tokens: Tensor) -> Tensor:
        """Return the reward of every token as if there were no other in the last block.

        Args:
            tokens: What enters it, `[B, T, D]`.

        Returns:
            `[B, T]`.
        """
        ...

    def effects_of_patches(
        self, levels: Sequence[int], context: Callable[[Tensor], Tensor], at_once: int
    ) -> Tensor:
        """Return by how much the reward of other images rises with each patch of the images.

        Args:
            levels: Before which blocks the activations of a patch are inserted; of one grid.
            context: From the images to the others, of the same shape.
            at_once: How many patches are inserted in one forward pass, each into a copy of its own.

        Returns:
            `[B, N]`.
        """
        ...


class NoPasses:
    """Stands for the passes of a recording alone."""

    def __getattr__(self, name: str) -> object:
        """Refuse whatever a method asks for.

        Raises:
            LibraGradError: Names what gives it.
        """
        raise LibraGradError(
            "This method runs the model several times, but a recording of one forward pass is all "
            "that is there; use `explain`, or pass `passes` to `capture`."
        )


@dataclass(frozen=True)
class ModelPasses:
    """The passes of a model.

    Attributes:
        model: The model.
        images: `[B, C, H, W]`.
        classes: What is explained of them, `[B]`.
        reward: What is differentiated.
        rules: The rule set.
        recording: The recorded forward pass of the images.
    """

    model: TokenModel
    images: Tensor
    classes: Tensor
    reward: Reward
    rules: RuleSet
    recording: Recording

    def generators(self, seed: int) -> list[torch.Generator]:
        """Return for every image a source of random numbers, which its pixels determine."""
        return image_generators(self.images, seed)

    def gradient_at(self, tokens: Tensor) -> Tensor:
        """Return the gradient of the reward at other tokens in place of z0."""
        recording = self.model.record_from_tokens(self.images, tokens)
        of_reward = self._reward_gradient(recording.logits, self.classes)
        z0 = parts_of(recording.features[0])
        gradients = grad(recording.logits, z0, of_reward, rules=self.rules, unknown="ignore")
        return recording.views[0].tokens(joined_features(gradients))

    def gradient_behind(self, tokens: Tensor) -> tuple[Tensor, list[Attention]]:
        """Return the gradient of the reward at other tokens behind the last block."""
        view = self.recording.views[-1]
        leaf = tokens.detach().requires_grad_()
        logits = logits_behind(self.model, self._starts(len(tokens)), view.features(leaf))
        pooling = PoolingLedger(len(tokens), view)
        classes = self.classes.repeat(len(tokens) // len(self.classes))
        (gradient,) = grad(
            logits,
            leaf,
            self._reward_gradient(logits, classes),
            rules=self.rules,
            unknown="ignore",
            watch=[AttentionWatch(pooling)],
        )
        return gradient, pooling.found

    def attention_of(self, level: int, gradient: Tensor) -> Attention:
        """Return the attention of one block, with its gradient."""
        recording, views = self.recording, self.recording.views
        after = [*recording.features[1:], recording.output][level]
        ledger = AttentionLedger(len(recording.logits), views[level : level + 1])
        grad(
            parts_of(after),
            parts_of(recording.features[level]),
            parts_of([*views[1:], views[-1]][level].features(gradient)),
            rules=self.rules,
            retain_graph=True,
            unknown="ignore",
            watch=[AttentionWatch(ledger)],
        )
        return ledger.by_level()[0]

    def rewards_alone(self, tokens: Tensor) -> Tensor:
        """Return the reward of every token as if there were no other in the last block."""
        count = tokens.shape[1]
        with torch.no_grad():
            starts = self._starts(len(tokens) * count)
            logits = logits_of_tokens_alone(self.model, starts, tokens)
            return self.reward(logits.flatten(0, 1), self.classes.repeat_interleave(count)).view(
                -1, count
            )

    def effects_of_patches(
        self, levels: Sequence[int], context: Callable[[Tensor], Tensor], at_once: int
    ) -> Tensor:
        """Return by how much the reward of other images rises with each patch of the images."""
        others, batch = context(self.images), len(self.images)
        sources = {level: self.recording.features[level] for level in levels}
        with_patches = inserted_patches(self.model, others, sources)
        height, width = self.recording.views[levels[0]].grid
        patches = torch.arange(height * width, device=self.images.device)
        rows = torch.arange(batch, device=self.images.device).repeat_interleave(len(patches))
        chunks = zip(rows.split(at_once), patches.repeat(batch).split(at_once), strict=True)
        with torch.no_grad():
            found = [self.reward(with_patches(r, p), self.classes[r]) for r, p in chunks]
            alone = self.reward(self.model.logits(others), self.classes)
        return torch.cat(found).view(batch, -1) - alone[:, None]

    def _starts(self, rows: int) -> Tensor:
        """Return images with which a forward pass of that many rows may start."""
        numbers = torch.arange(rows, device=self.images.device) % len(self.images)
        return self.model.placeholder_images(self.images, numbers)

    def _reward_gradient(self, logits: Tensor, classes: Tensor) -> Tensor:
        return reward_gradient(logits.detach(), classes, self.reward)
