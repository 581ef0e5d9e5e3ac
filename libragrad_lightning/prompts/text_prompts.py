"""Text prompts: how well each of some texts fits each image, as scores that can be explained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from libragrad_lightning.attribution import Task
from libragrad_lightning.attribution.tasks import ScoringModule
from libragrad_lightning.models import explanation_state
from libragrad_lightning.prompts.belonging import (
    Trial,
    check_vocabulary,
    warn_of_small_vocabulary,
)
from libragrad_lightning.prompts.encoders import PAPER_SCALE, DualEncoder, Encoder, dual_encoder
from libragrad_lightning.prompts.errors import PromptError
from libragrad_lightning.prompts.tokens import (
    Tokenizer,
    Tokens,
    declared_size,
    tokenized,
    vocabulary_size,
)
from libragrad_lightning.prompts.weights import Weights, with_weights

_Method = TypeVar("_Method", bound=Callable[..., Any])
_AT_ONCE = 256
"""How many texts are encoded at once."""


def _uncompiled(method: _Method) -> _Method:
    """Leave a method out of compiled graphs."""
    return cast("_Method", torch.compiler.disable(method))


def text_prompts(
    model: nn.Module | tuple[Encoder, Encoder],
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    templates: Sequence[str] = ("{}",),
    scale: float | None = None,
    task: Task = "multilabel",
) -> TextPrompts:
    """Return a module from images `[B, C, H, W]` to their similarities to texts `[B, P]`.

    `explain` takes it as a model, and so does the audit: as a part of a LightningModule, or in its
    `forward`. Texts are encoded once, without gradients, and again when the weights that they were
    encoded with have changed.

    Args:
        model: A model of images and texts, as those of open_clip and transformers, or the pair of
            an image encoder and a text encoder, two modules or functions.
        tokenizer: That of the model: from a list of texts to token ids `[N, L]`, or to a mapping
            that holds them as ``"input_ids"``.
        prompts: The texts, or what is put into templates: what is looked for.
        templates: Texts with one ``{}`` for the prompt, such as ``"a photo of a {}"``. The
            embedding of a prompt is the mean of those of its texts, each of them and the mean
            normalized (Radford et al. 2021, section 3.1.4).
        scale: What cosines are multiplied by. By default the model's own ``logit_scale.exp()``,
            plus its ``logit_bias`` if it has one, else 100; the paper has 100 throughout.
        task: What the scores mean where `explain` is not told: ``"multilabel"``, each prompt
            stands for itself, or ``"multiclass"``, one of them holds (zero-shot classification).

    Raises:
        PromptError: If the prompts are none, empty or too long, or do not fit the model.

    Example:
        >>> from libragrad_lightning import explain
        >>> from libragrad_lightning.prompts import text_prompts
        >>> image_encoder = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 4, 4), torch.nn.GELU(),
        ...     torch.nn.Conv2d(4, 8, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> text_encoder = torch.nn.EmbeddingBag(26, 8)
        >>> def letters(texts):
        ...     return torch.tensor([[ord(c) - 97 for c in t if c != " "] for t in texts])
        >>> prompts = text_prompts((image_encoder, text_encoder), letters, ["cat", "dog"])
        >>> explain(prompts, torch.randn(2, 3, 16, 16), target=1).attribution.shape
        torch.Size([2, 4, 4])
    """
    names = _checked(prompts, "prompts")
    forms = _checked(templates, "templates")
    for form in forms:
        if form.count("{}") != 1:
            raise PromptError(
                f"The template {form!r} must hold '{{}}' once, where the prompt goes; change "
                "`templates`."
            )
    encoder = dual_encoder(model)
    texts = [form.replace("{}", name) for name in names for form in forms]
    tokens = tokenized(tokenizer, texts, _context(model))
    size = vocabulary_size(tokenizer, tokens)
    found = TextPrompts(encoder, tokens, names, forms, size, scale, task)
    if found.embedding is not None:
        warn_of_small_vocabulary(found.embedding.num_embeddings, declared_size(tokenizer))
    return found


@dataclass(frozen=True)
class _Encoded:
    """Embeddings of prompts `[P, D]`, and what they were computed with."""

    embeddings: Tensor
    weights: Weights
    dtype: torch.dtype
    device: torch.device


class TextPrompts(ScoringModule):
    """Scores of images under text prompts; made by `text_prompts`.

    Attributes:
        encoder: The encoders of the model.
        tokens: The texts as tokens: P x K of them, those of the first prompt first.
        prompts: The prompts.
        templates: What the prompts were put into.
        scale: What cosines are multiplied by; None if the model says.
        task: What the scores mean.
        class_names: The prompts again.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        tokens: Tokens,
        prompts: tuple[str, ...],
        templates: tuple[str, ...],
        vocabulary: int,
        scale: float | None,
        task: Task,
    ) -> None:
        super().__init__()
        self.model = encoder.model
        self.encoder, self.tokens = encoder, tokens
        self.prompts, self.templates = prompts, templates
        self.scale, self.task, self.class_names = scale, task, prompts
        self._encoded: _Encoded | None = None
        # In a tuple, since it is a part of the model already.
        self._embeds = (self._find_embedding(vocabulary),)

    @property
    def embedding(self) -> nn.Embedding | None:
        """The module that embeds the tokens; None if no module does."""
        return self._embeds[0]

    def train(self, mode: bool = True) -> TextPrompts:
        """Set the mode of the model.

        Raises:
            PromptError: If the prompts are a part of the model that they were made for.
        """
        self._check_is_no_part()
        return super().train(mode)

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores `[B, P]` of images `[B, C, H, W]`.

        Raises:
            PromptError: If the prompts are a part of the model that they were made for.
        """
        self._check_is_no_part()
        embeddings = self.encoder.image_embeddings(images)
        texts = self.text_embeddings(embeddings.device, embeddings.dtype)
        if texts.shape[1] != embeddings.shape[1]:
            raise PromptError(
                f"Images are embedded in {embeddings.shape[1]} dimensions and texts in "
                f"{texts.shape[1]}; pass encoders into one space as `model`."
            )
        return self.encoder.scaled(embeddings @ texts.T, self.scale)

    @_uncompiled
    def text_embeddings(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Return the embeddings of the prompts `[P, D]`, of length one, without a graph."""
        known = self._encoded
        if known is None or not (
            (known.dtype, known.device) == (dtype, device)
            and known.weights.are_those_of(self.model)
        ):
            with _as_constants(self.model, device):
                first, weights = with_weights(lambda: self._of_texts(slice(0, 1), device))
                starts = range(1, len(self.tokens), _AT_ONCE)
                rest = [self._of_texts(slice(i, i + _AT_ONCE), device) for i in starts]
                each = torch.cat([first, *rest]).unflatten(0, (len(self.prompts), -1))
                found = F.normalize(each.mean(1), dim=-1) if each.shape[1] > 1 else each[:, 0]
                known = _Encoded(found.to(dtype), weights, dtype, device)
            self._encoded = known
        return known.embeddings

    def extra_repr(self) -> str:
        """Say what the scores are."""
        if self.scale is None and self.encoder.has_scale:
            bias = " + logit_bias" if getattr(self.model, "logit_bias", None) is not None else ""
            scores = f"logit_scale.exp() * cosine{bias}"
        else:
            scores = f"{PAPER_SCALE if self.scale is None else self.scale:g} * cosine"
        return f"scores={scores}, prompts={len(self.prompts)}, templates={len(self.templates)}"

    def _check_is_no_part(self) -> None:
        """Refuse a circle of modules, in which all that visits parts would never end."""
        if self.model is not None and any(
            self in m._modules.values() for m in self.model.modules()
        ):
            raise PromptError(
                f"The prompts are a part of the {type(self.model).__name__} that was passed to "
                "`text_prompts` as `model`; pass the part of it that embeds images and texts, or "
                "the pair `(image_encoder, text_encoder)` of two parts."
            )

    def _apply(self, *args: Any, **kwargs: Any) -> TextPrompts:
        self._check_is_no_part()
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return self

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._check_is_no_part()
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._check_is_no_part()
        super()._load_from_state_dict(*args, **kwargs)

    def _of_texts(self, index: slice, device: torch.device) -> Tensor:
        return self.encoder.text_embeddings(self.tokens.rows(index, device))

    def _find_embedding(self, vocabulary: int) -> nn.Embedding | None:
        """Return the module that embeds the tokens, after a look at the first text."""
        if self.model is None:
            return None
        found: list[nn.Embedding] = []
        ids = self.tokens.ids[:1]

        def look(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            if isinstance(module, nn.Embedding) and args and _begin(ids, args[0]):
                check_vocabulary(module.num_embeddings, vocabulary)
                found.append(module)

        device = next((p.device for p in self.model.parameters()), ids.device)
        with ExitStack() as stack, explanation_state(self.model), torch.no_grad():
            for module in self.model.modules():
                if isinstance(module, nn.Embedding):
                    stack.callback(module.register_forward_pre_hook(look).remove)
            self._of_texts(slice(0, 1), device)
            trial = Trial(self.encoder, self.tokens, device)
            trial.check_last_words()
            trial.check_context(_declared_context(self.model))
        return found[0] if found else None


@contextmanager
def _as_constants(model: nn.Module | None, device: torch.device) -> Iterator[None]:
    """Let texts be encoded as they are in evaluation: exactly, and without a graph."""
    modules = [] if model is None else [m for m in model.modules() if m.training]
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        try:
            for module in modules:
                module.training = False
            yield
        finally:
            for module in modules:
                module.training = True


def _begin(ids: Tensor, given: object) -> bool:
    """Whether ids `[1, L]`, or the first of them, are what a module is given."""
    if not isinstance(given, Tensor) or given.dim() != 2 or len(given) != 1:
        return False
    return given.shape[1] > 0 and torch.equal(given.cpu(), ids[:, : given.shape[1]])


def _checked(texts: Sequence[str], argument: str) -> tuple[str, ...]:
    if isinstance(texts, str):
        raise PromptError(f"`{argument}` must be a list of texts; pass [{texts!r}].")
    if not texts:
        raise PromptError(f"`{argument}` is empty; pass at least one text.")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise PromptError(
                f"`{argument}` holds {text!r}, which says nothing of an image; pass texts."
            )
    return tuple(texts)


def _declared_context(model: object) -> int | None:
    """Return how many tokens a model of open_clip says that it takes."""
    found = getattr(model, "context_length", None)
    return found if isinstance(found, int) else None


def _context(model: object) -> int | None:
    """Return how many tokens a model of transformers takes; others are known by their tokenizer."""
    config = getattr(getattr(model, "config", None), "text_config", None)
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) else None
