"""Whether a tokenizer belongs to a model, as far as the model shows it.

What configurations say is no help: that of OpenAI's CLIP in transformers names other begin and end
tokens than its tokenizer has, and that of SigLIP ones that it does not embed. So it is tried out
what a model reads.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from libragrad_lightning.prompts.encoders import DualEncoder
from libragrad_lightning.prompts.errors import PromptError
from libragrad_lightning.prompts.tokens import Tokens

_MOST = 4
"""So many texts are tried."""
_SAME = 1e-6
"""Embeddings of length one that differ by less are the same."""
_SPARE, _SPARE_SHARE = 1024, 0.1
"""Rows without a token that embeddings may have, since their number is made even."""
_ADVICE = "pass the `tokenizer` that the model was trained with"


def check_vocabulary(embedded: int, vocabulary: int) -> None:
    """Refuse more tokens than a model embeds; warn of far fewer.

    Args:
        embedded: How many tokens the model embeds.
        vocabulary: How many the tokenizer has.

    Raises:
        PromptError: If they are more.
    """
    if vocabulary > embedded:
        raise PromptError(
            f"The tokenizer has {vocabulary} tokens, but the model embeds {embedded}, so it "
            f"belongs to another model; {_ADVICE}."
        )


def warn_of_small_vocabulary(embedded: int, declared: int) -> None:
    """Warn of a tokenizer that says it has far fewer tokens than a model embeds."""
    if declared and embedded - declared > max(_SPARE, _SPARE_SHARE * embedded):
        warnings.warn(
            f"The tokenizer has {declared} tokens, and the model embeds {embedded}, so it may "
            f"belong to another model; {_ADVICE}.",
            stacklevel=4,
        )


@dataclass(frozen=True)
class Trial:
    """Texts that an encoder is tried with.

    Attributes:
        encoder: The encoder.
        tokens: The texts.
        device: Where they go.
    """

    encoder: DualEncoder
    tokens: Tokens
    device: torch.device

    def check_last_words(self) -> None:
        """Refuse texts whose last words change nothing.

        A causal text encoder is read at the token that ends a text, and reads nothing behind it: it
        is at the beginning, or among the words, if the tokenizer has another end.

        Raises:
            PromptError: If there is one.
        """
        given = self._inputs()
        ids, special = self.tokens.ids[:_MOST], self.tokens.special[:_MOST]
        others = _other_last_words(ids, special)
        tried = (others != ids).any(1)
        if not bool(tried.any()):
            return
        name = "" if "" in given else "input_ids"
        changed = self._embedded({**given, name: others.to(given[name])})
        same = _alike(self._embedded(given), changed).cpu() & tried
        if bool(same.any()):
            text = self._text(int(same.nonzero()[0, 0]))
            raise PromptError(
                f"The model embeds {text!r} as it does with another last word, so it does not read "
                f"all of it: it looks for another token at the end; {_ADVICE}."
            )

    def check_context(self, context: int | None) -> None:
        """Refuse texts that are padded to fewer tokens than a model reads.

        Args:
            context: How many tokens the model takes, if that is known.

        Raises:
            PromptError: If further padding changes what they mean.
        """
        given, count = self._inputs(), self.tokens.ids.shape[1]
        if context is None or count >= context or "" not in given:
            return
        padded = F.pad(given[""], (0, context - count), value=self._padding())
        try:
            longer = self._embedded({"": padded})
        except PromptError:
            return  # It does not take as many.
        if not bool(_alike(self._embedded(given), longer).all()):
            raise PromptError(
                f"The tokenizer returns {count} tokens, but the model reads {context}, padding "
                f"too; pass a `tokenizer` that pads to {context}, such as `partial(tokenizer, "
                f"context_length={context})`."
            )

    def _inputs(self) -> dict[str, Tensor]:
        return self.tokens.rows(slice(0, _MOST), self.device)

    def _embedded(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.encoder.text_embeddings(inputs)

    def _padding(self) -> int:
        ends, special = self.tokens.ids[:, -1], self.tokens.special[:, -1]
        return int(ends[special][0]) if bool(special.any()) else 0

    def _text(self, row: int) -> str:
        words = zip(self.tokens.words(row), self.tokens.special[row].tolist(), strict=True)
        return " ".join(word for word, special in words if not special)


def _other_last_words(ids: Tensor, special: Tensor) -> Tensor:
    """Return ids `[N, L]` with a smaller one in place of each text's last word, if there is one.

    The largest id may be what ends a text. Where no token is special, words cannot be told from
    padding.
    """
    found, words = ids.clone(), ids[~special]
    for row in range(len(ids)):
        places = (~special[row]).nonzero()[:, 0]
        if len(places) in (0, ids.shape[1]):
            continue
        last = ids[row, places[-1]]
        smaller = words[words < last]
        if len(smaller) or last - 1 not in ids[row]:
            found[row, places[-1]] = smaller.max() if len(smaller) else (last - 1).clamp_min(0)
    return found


def _alike(one: Tensor, other: Tensor) -> Tensor:
    """Return which rows are the same up to rounding, bool `[N]`."""
    return (one - other).abs().amax(1) <= _SAME
