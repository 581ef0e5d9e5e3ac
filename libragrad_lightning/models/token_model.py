"""Reads a model as tokens, blocks and logits, by its structure and not by its name.

The explained tensor is z0, the token sequence after patch embedding, prefix tokens and position
embedding (Mehri et al. 2025, section 4). It enters the module `norm_pre` where there is one, and
the first block otherwise. Forward hooks stand on that module and on the blocks only while a forward
pass of ours runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from libragrad_lightning.backward import ConstantObserver
from libragrad_lightning.models.errors import UnreadableModelError


@dataclass(frozen=True)
class TokenLayout:
    """Where the tokens of a model are.

    Attributes:
        entry: The module whose first input is z0, `[B, T, D]`.
        blocks: The blocks, in order; the input of each is a token sequence `[B, T, D]`.
        num_prefix_tokens: How many leading tokens are not patches.
    """

    entry: nn.Module
    blocks: tuple[nn.Module, ...]
    num_prefix_tokens: int


@dataclass(frozen=True)
class Recording:
    """One recorded forward pass.

    Attributes:
        logits: `[B, C]`, with a graph that starts at z0.
        features: z0 and the inputs of all blocks but the first, each `[B, T, D]`; z0 is a leaf.
        num_prefix_tokens: How many leading tokens are not patches.
    """

    logits: Tensor
    features: tuple[Tensor, ...]
    num_prefix_tokens: int


@dataclass(frozen=True)
class TokenModel:
    """A model that maps images to logits, with its token layout.

    Attributes:
        forward: Images `[B, C, H, W]` to logits `[B, classes]`, or to anything that holds them.
        layout: Where the tokens are.
    """

    forward: Callable[[Tensor], Any]
    layout: TokenLayout
    _drops: dict[int, bool] = field(default_factory=dict, repr=False)

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits `[B, C]` of images `[B, C, H, W]`."""
        return logits_of(self.forward(images))

    def tokens(self, images: Tensor) -> Tensor:
        """Return z0 `[B, T, D]` without a graph."""
        seen: list[Tensor] = []
        with torch.no_grad(), _input_of(self.layout.entry, seen.append):
            self.logits(images)
        return _only(seen, self.layout.entry)

    def logits_from_tokens(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Return the logits of a forward pass that goes on from other tokens.

        Args:
            images: `[B, C, H, W]`; the forward pass starts with them as usual.
            tokens: `[B, T', D]`, prefix tokens first, in place of z0.
        """
        with _input_of(self.layout.entry, lambda _: tokens):
            return self.logits(images)

    def record(self, images: Tensor) -> Recording:
        """Run a forward pass and record z0 and the block inputs.

        Needs gradients enabled. The graph starts at z0, so nothing before it is differentiated.
        """
        entries: list[Tensor] = []
        features: list[Tensor] = []

        def start_here(tokens: Tensor) -> Tensor:
            entries.append(tokens.detach().requires_grad_())
            return entries[-1]

        with (
            ConstantObserver(),
            _input_of(self.layout.entry, start_here),
            _inputs_of(self.layout.blocks[1:], features.append),
        ):
            logits = self.logits(images)
        z0 = _only(entries, self.layout.entry)
        return Recording(logits, (z0, *features), self.layout.num_prefix_tokens)

    def grid(self, images: Tensor, num_tokens: int) -> tuple[int, int]:
        """Return the rows and columns of the patch grid.

        Args:
            images: `[B, C, H, W]`.
            num_tokens: The length of the token sequence, prefix included.

        Raises:
            UnreadableModelError: If the patches do not fill a grid of the images' aspect ratio.
        """
        patches = num_tokens - self.layout.num_prefix_tokens
        height, width = images.shape[-2:]
        rows = round(math.sqrt(patches * height / width))
        if rows == 0 or patches % rows:
            raise UnreadableModelError(
                f"{patches} patch tokens do not fill a grid for images of {height} x {width}; pass "
                "images of the aspect ratio that the model was built for."
            )
        return rows, patches // rows

    def positions_end_at_tokens(self, images: Tensor) -> bool:
        """Return whether patch tokens carry their positions, so that some may be left out.

        That is so if the model accepts fewer tokens, and gives the same logits for the patch tokens
        in another order, up to rounding. Models with rotary tables, relative positions or token
        mixing do not. Looked at once per number of tokens.
        """
        tokens = self.tokens(images[:1])
        count = tokens.shape[1]
        if count not in self._drops:
            with torch.no_grad():
                self._drops[count] = self._accepts_fewer(images[:1], tokens) and (
                    self._ignores_order(images[:1], tokens)
                )
        return self._drops[count]

    def _accepts_fewer(self, images: Tensor, tokens: Tensor) -> bool:
        try:
            self.logits_from_tokens(images, tokens[:, :-1])
        except (RuntimeError, ValueError, AssertionError, IndexError):
            return False
        return True

    def _ignores_order(self, images: Tensor, tokens: Tensor) -> bool:
        prefix = self.layout.num_prefix_tokens
        reordered = torch.cat([tokens[:, :prefix], tokens[:, prefix:].flip(1)], dim=1)
        logits = self.logits_from_tokens(images, tokens)
        change = (self.logits_from_tokens(images, reordered) - logits).abs().max()
        rounding = 100 * torch.finfo(logits.dtype).eps * logits.abs().max()
        return bool(change <= rounding)


def logits_of(output: Any) -> Tensor:
    """Return the logits `[B, C]` in what a model returned: a tensor, or `.logits`, or `["logits"]`.

    Raises:
        UnreadableModelError: If there are none.
    """
    found = output
    if isinstance(output, dict):
        found = output.get("logits")
    elif not isinstance(output, Tensor):
        found = getattr(output, "logits", output[0] if isinstance(output, Sequence) else None)
    if not isinstance(found, Tensor) or found.dim() != 2:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(output).__name__
        raise UnreadableModelError(
            f"The model must return logits of shape [B, C] but returned {shape}; pass a module "
            "that does as `model`."
        )
    return found


@contextmanager
def _input_of(module: nn.Module, use: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Show a module's first input to a function, whose answer replaces it unless it is None."""

    def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        replacement = use(args[0])
        return None if replacement is None else (replacement, *args[1:])

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _inputs_of(modules: Sequence[nn.Module], use: Callable[[Tensor], None]) -> Iterator[None]:
    def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
        use(args[0])

    handles = [module.register_forward_pre_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _only(tensors: Sequence[Tensor], module: nn.Module) -> Tensor:
    if len(tensors) != 1:
        raise UnreadableModelError(
            f"{type(module).__name__}, where the tokens enter, ran {len(tensors)} times in one "
            "forward pass instead of once; pass the path of the backbone to explain as `backbone`."
        )
    return tensors[0]
