"""A tokenizer whose tokens are words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class WordTokenizer:
    """Turns texts into ids of their words, with an end and padding.

    Args:
        words: The words that texts may hold.
        context: How many tokens a text has, its end included.

    Example:
        >>> WordTokenizer(["a", "bag"], context=4)(["a bag", "bag"])
        tensor([[2, 3, 1, 0],
                [3, 1, 0, 0]])
    """

    padding = 0
    end = 1

    def __init__(self, words: Sequence[str], context: int) -> None:
        self._strings = ("", "<end>", *words)
        self._ids = {word: i for i, word in enumerate(self._strings)}
        self.context = context

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return len(self._strings)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return the ids of texts, int64 `[N, context]`.

        Raises:
            ValueError: If a text is too long, or holds an unknown word.
        """
        ids = torch.full((len(texts), self.context), self.padding)
        for row, text in zip(ids, texts, strict=True):
            found = [*map(self._id, text.split()), self.end]
            if len(found) > self.context:
                raise ValueError(
                    f"The text {text!r} has {len(found) - 1} words, but at most "
                    f"{self.context - 1} are read; shorten it."
                )
            row[: len(found)] = torch.tensor(found)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the words that ids stand for."""
        return " ".join(self._strings[i] for i in ids)

    def _id(self, word: str) -> int:
        if word not in self._ids:
            raise ValueError(
                f"The word {word!r} is not among those that are known, "
                f"{', '.join(self._strings[2:])}; choose one of them."
            )
        return self._ids[word]
