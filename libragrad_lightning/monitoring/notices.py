"""What is said once in a fit."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn


class Notices:
    """Says every sentence once.

    Attributes:
        sentences: What was said, in its order; warnings begin with ``!``.
    """

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self._said: set[str] = set()

    def forget(self) -> None:
        """Begin anew."""
        self._said.clear()
        self.sentences.clear()

    def info(self, sentence: str) -> None:
        """Say a sentence that needs no action."""
        if sentence not in self._said:
            self._said.add(sentence)
            self.sentences.append(sentence)
            rank_zero_info(sentence)

    def warn(self, sentence: str, about: str = "") -> None:
        """Warn.

        Args:
            sentence: What to say.
            about: What the sentence is about, if its numbers change.
        """
        if (about or sentence) not in self._said:
            self._said.add(about or sentence)
            self.sentences.append(f"!{sentence}")
            rank_zero_warn(sentence)
