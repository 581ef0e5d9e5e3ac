"""Texts as token ids: checked, with the string and the place of every word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from libragrad_lightning.prompts.errors import PromptError

Tokenizer: TypeAlias = Callable[..., Any]
"""A list of texts to ids `[N, L]`, or to a mapping that holds them as ``"input_ids"``."""

_LONGEST = 100_000
"""Tokenizers without a limit give a larger number."""


@dataclass(frozen=True)
class Tokens:
    """Tokenized texts.

    Attributes:
        inputs: What the text encoder is given, `[N, L]` each; the name of ids alone is empty.
        special: Which tokens are no part of the text: begin, end, padding; bool `[N, L]`.
        strings: The string of every id that occurs.
    """

    inputs: Mapping[str, Tensor]
    special: Tensor = field(repr=False)
    strings: Mapping[int, str] = field(repr=False)

    @property
    def ids(self) -> Tensor:
        """The ids of all tokens, int64 `[N, L]`."""
        return self.inputs.get("", self.inputs.get("input_ids", torch.zeros(0, 0)))

    def __len__(self) -> int:
        """The number of texts."""
        return len(self.ids)

    def rows(self, index: slice, device: torch.device) -> dict[str, Tensor]:
        """Return what the text encoder is given of some texts, on a device."""
        return {name: tensor[index].to(device) for name, tensor in self.inputs.items()}

    def words(self, text: int) -> list[str]:
        """Return the strings of all tokens of a text."""
        return [self.strings[i] for i in self.ids[text].tolist()]


def tokenized(tokenizer: Tokenizer, texts: Sequence[str], context: int | None) -> Tokens:
    """Tokenize texts, none of which may be cut off.

    Args:
        tokenizer: That of the model.
        texts: The texts.
        context: How many tokens the model takes, if that is known.

    Raises:
        PromptError: If the tokenizer refuses the texts, or one of them is too long.
    """
    tokenizer = _of_processor(tokenizer)
    try:
        inputs = _inputs(tokenizer, texts, context)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        if isinstance(error, PromptError):
            raise
        raise PromptError(
            f"The tokenizer refuses the prompts ({type(error).__name__}: {error}); shorten the "
            "`prompts` or their `templates`, or pass a `tokenizer` from a list of texts to ids."
        ) from error
    ids = inputs.get("", inputs.get("input_ids"))
    if ids is None or ids.dim() != 2 or len(ids) != len(texts):
        seen = ", ".join(f"{name or 'a tensor'} {tuple(t.shape)}" for name, t in inputs.items())
        raise PromptError(
            f"`tokenizer` must return ids [{len(texts)}, L], or a mapping that holds them as "
            f"'input_ids', but returned {seen or 'neither'}; wrap it in a function that does."
        )
    _check_whole(tokenizer, texts, ids, context)
    special = _special(tokenizer, inputs, ids, context)
    return Tokens(inputs, special, {i: _string(tokenizer, i) for i in ids.unique().tolist()})


def vocabulary_size(tokenizer: Tokenizer, tokens: Tokens) -> int:
    """Return how many ids a tokenizer has, as far as can be told."""
    return max(int(tokens.ids.max()) + 1, declared_size(tokenizer))


def declared_size(tokenizer: Tokenizer) -> int:
    """Return how many ids a tokenizer says that it has; 0 if it does not."""
    declared = getattr(_of_processor(tokenizer), "vocab_size", 0)
    return declared if isinstance(declared, int) else 0


def _of_processor(tokenizer: Any) -> Any:
    """Return the tokenizer of a processor of transformers, which prepares images too."""
    return tokenizer.tokenizer if hasattr(tokenizer, "image_processor") else tokenizer


def _inputs(tokenizer: Any, texts: Sequence[str], context: int | None) -> dict[str, Tensor]:
    if _is_of_transformers(tokenizer):
        return _padded(tokenizer, texts, context)
    output = tokenizer(list(texts))
    if isinstance(output, Mapping):
        return {name: t for name, t in output.items() if isinstance(t, Tensor)}
    return {"": torch.as_tensor(output)}


def _is_of_transformers(tokenizer: Any) -> bool:
    return hasattr(tokenizer, "model_max_length")


def _padded(tokenizer: Any, texts: Sequence[str], context: int | None) -> dict[str, Tensor]:
    """Return texts padded to the context, as SigLIP needs them; others are told by a mask."""
    limit = tokenizer.model_max_length if context is None else context
    if limit > _LONGEST:
        found = tokenizer(list(texts), padding="longest", truncation=False)
    else:
        found = tokenizer(list(texts), padding="max_length", max_length=limit, truncation=False)
        for text, ids in zip(texts, found["input_ids"], strict=True):
            if len(ids) > limit:
                raise _too_long(text, f"{len(ids)} tokens, and the model takes {limit}")
    return {name: torch.tensor(rows) for name, rows in found.items()}


def _too_long(text: str, why: str) -> PromptError:
    shown = text if len(text) < 60 else f"{text[:57]}..."
    return PromptError(f"The prompt {shown!r} is too long ({why}); shorten it, or its `templates`.")


def _check_whole(tokenizer: Any, texts: Sequence[str], ids: Tensor, context: int | None) -> None:
    """Refuse texts of which the tokenizer cut the end: what follows them changes nothing."""
    if _is_of_transformers(tokenizer):
        return
    try:
        longer = _inputs(tokenizer, [f"{text} {text}" for text in texts], context)
    except (RuntimeError, ValueError, AssertionError):
        return  # It refuses what is too long.
    others = longer.get("", longer.get("input_ids"))
    if others is None or others.shape != ids.shape:
        return
    same = (others == ids).all(1)
    if bool(same.any()):
        text = texts[int(same.nonzero()[0, 0])]
        raise _too_long(text, f"the tokenizer keeps {ids.shape[1]} tokens and cuts off the rest")


def _special(
    tokenizer: Any, inputs: Mapping[str, Tensor], ids: Tensor, context: int | None
) -> Tensor:
    """Return which tokens a text without words has too, and which are masked."""
    try:
        of_nothing = _inputs(tokenizer, [""], context)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
        return torch.zeros_like(ids, dtype=torch.bool)
    empty = of_nothing.get("", of_nothing.get("input_ids", ids[:0]))
    declared = getattr(tokenizer, "all_special_ids", [])
    special = torch.isin(ids, torch.cat([empty.flatten(), torch.tensor(declared, dtype=ids.dtype)]))
    masked = inputs.get("attention_mask")
    if masked is not None:
        return special | (masked == 0)
    if ids.shape[1] == empty.shape[1]:
        # What pads the end may be a word before it, as "!" is for CLIP.
        padding = ids == empty[0, -1]
        inside = padding & ((~padding).flip(1).cumsum(1).flip(1) > 0)
        return special & ~(inside & ~torch.isin(ids, torch.tensor(declared, dtype=ids.dtype)))
    return special


def _string(tokenizer: Any, token: int) -> str:
    decode = getattr(tokenizer, "decode", None)
    if not callable(decode):
        return str(token)
    return str(decode([token])).strip()
