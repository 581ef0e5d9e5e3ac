"""Which words of a text an image answers to.

A text is an image of one row, `[L, 1, L]`: pixel t says by its L channels which of the L tokens of
the text stands there. What it is compared with are images. So the same reading finds blocks and
tokens of a text tower, every method and every rule set applies, and relevances are complete in the
same sense.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from libragrad_lightning.attribution import Explanation, Method, explain
from libragrad_lightning.backward import RuleSet
from libragrad_lightning.models import explanation_state
from libragrad_lightning.prompts.errors import PromptError
from libragrad_lightning.prompts.text_prompts import TextPrompts


@dataclass(frozen=True)
class WordExplanation:
    """What the tokens of P texts, of L tokens each, contribute to their scores for B images.

    Attributes:
        relevance: Signed, of every token, `[B, P, L]`.
        is_word: Which tokens are words or parts of them, bool `[P, L]`; others are special: begin,
            end, padding.
        tokens: The strings of all tokens, by text.
        elsewhere: What belongs to no token of the text `[B, P]`: tokens that the tower adds itself,
            and biases behind the last token.
        scores: The explained scores `[B, P]`.
        residuals: How far the sums at every block are from the scores, `[blocks, B, P]`.
    """

    relevance: Tensor
    is_word: Tensor
    tokens: tuple[tuple[str, ...], ...]
    elsewhere: Tensor
    scores: Tensor
    residuals: Tensor

    def words(self, image: int, text: int) -> list[tuple[str, float]]:
        """Return the words of a text, and the relevance of each for an image."""
        values = self.relevance[image, text].tolist()
        parts = zip(self.tokens[text], values, self.is_word[text].tolist(), strict=True)
        return [(string, value) for string, value, is_word in parts if is_word]


def explain_words(
    prompts: TextPrompts,
    images: Tensor,
    *,
    method: str | Method = "fullgrad",
    rules: str | RuleSet = "libra",
    batch_size: int | None = None,
) -> WordExplanation:
    """Explain the score of every pair of an image and a text by the tokens of the text.

    The explained tensor is what enters the first block of the text tower: embeddings of tokens and
    of positions. With the method ``"fullgrad"`` and complete rules, the relevances of a pair and
    what is `elsewhere` add up to its score.

    Args:
        prompts: The texts, with one template.
        images: `[B, C, H, W]`.
        method: The attribution method, by name or a function, as for `explain`.
        rules: The rule set.
        batch_size: Images compared at once; by default as many as memory allows.

    Raises:
        PromptError: If prompts have several templates, or no module embeds the tokens.
        LibraGradError: If the text tower cannot be explained.

    Example:
        See `docs/text_prompts.md`.
    """
    if len(prompts.templates) > 1:
        raise PromptError(
            f"Every prompt is the mean of {len(prompts.templates)} texts, whose words are not the "
            "same; pass one of the `templates` to `text_prompts` to explain its words."
        )
    if prompts.embedding is None:
        raise PromptError(
            "No `torch.nn.Embedding` of the text encoder receives the ids of the tokens, so that "
            "there are no embeddings of words to explain; pass the text encoder as a module that "
            "embeds them so."
        )
    with explanation_state(prompts), torch.no_grad():
        found = prompts.encoder.image_embeddings(images)
    explained = [
        _explained(prompts, number, found, method, rules, batch_size)
        for number in range(len(prompts.prompts))
    ]
    return WordExplanation(
        torch.stack([e.attribution[:, 0] for e in explained], 1),
        ~prompts.tokens.special,
        tuple(tuple(prompts.tokens.words(i)) for i in range(len(explained))),
        torch.stack([_elsewhere(e) for e in explained], 1),
        torch.stack([e.target_logit for e in explained], 1),
        torch.stack([e.residuals for e in explained], 2),
    )


def _elsewhere(explanation: Explanation) -> Tensor:
    assert explanation.image_biases is not None
    return explanation.prefix.sum(1) + explanation.image_biases


def _explained(
    prompts: TextPrompts,
    number: int,
    images: Tensor,
    method: str | Method,
    rules: str | RuleSet,
    batch_size: int | None,
) -> Explanation:
    """Explain a text for each image: the embeddings of its words, by the images as classes."""
    scores = _TextScores(prompts, number, images)
    row = scores.row()
    return explain(
        prompts,
        row.expand(len(images), *row.shape[1:]),
        target=range(len(images)),
        method=method,
        rules=rules,
        reward="logit",
        task="multilabel",
        batch_size=batch_size,
        progress=False,
        forward=scores,
    )


@dataclass(frozen=True)
class _TextScores:
    """From a text to its scores for all images.

    Attributes:
        prompts: The texts.
        number: Which of them.
        images: Embeddings of images `[B, D]`, of length one.
    """

    prompts: TextPrompts
    number: int
    images: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the scores `[R, B]` of R variants of the text, `[R, L, 1, L]`."""
        inputs = self._inputs()
        with torch.no_grad():
            embeddings = self._embedding()(inputs.get("", inputs.get("input_ids")))[0]
        inputs = {name: t.expand(len(rows), -1) for name, t in inputs.items()}
        with _embedded_as(self._embedding(), rows[:, :, 0].transpose(1, 2) @ embeddings):
            texts = self.prompts.encoder.text_embeddings(inputs)
        return self.prompts.encoder.scaled(texts @ self.images.T, self.prompts.scale)

    def row(self) -> Tensor:
        """Return the text as it is, `[1, L, 1, L]`."""
        return torch.eye(self.prompts.tokens.ids.shape[1]).to(self.images)[None, :, None]

    def _inputs(self) -> dict[str, Tensor]:
        return self.prompts.tokens.rows(slice(self.number, self.number + 1), self.images.device)

    def _embedding(self) -> nn.Embedding:
        assert self.prompts.embedding is not None
        return self.prompts.embedding


@contextmanager
def _embedded_as(module: nn.Embedding, embeddings: Tensor) -> Iterator[None]:
    """Let the first call of a module return other embeddings."""
    calls = 0

    def exchange(_: nn.Module, __: Any, output: Tensor) -> Tensor | None:
        nonlocal calls
        calls += 1
        return embeddings[:, : output.shape[1]] if calls == 1 else None

    handle = module.register_forward_hook(exchange)
    try:
        yield
    finally:
        handle.remove()
