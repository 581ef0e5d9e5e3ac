"""Reads where the features of a model are, from one forward pass of it.

No model is known by name. A *block* is a module inside which paths part and meet again (a residual
connection, a gate, parallel branches), and whose input and output carry everything that the logits
know of the image; such tensors are found by counting paths in the recorded graph. The inputs of the
blocks are the levels at which attributions are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from libragrad_lightning.backward import edge_of
from libragrad_lightning.models.calls import Call, recorded_calls
from libragrad_lightning.models.errors import UnreadableModelError
from libragrad_lightning.models.feature_view import FeatureView, feature_view
from libragrad_lightning.models.logits import check_classifies, logits_of
from libragrad_lightning.models.paths import PathCounts
from libragrad_lightning.models.refusals import REFUSALS, is_out_of_memory
from libragrad_lightning.models.state import explanation_state
from libragrad_lightning.models.token_model import Level, TokenModel

_PROBE_IMAGES = 2
"""So that an axis of length one cannot be taken for the batch."""
_INNER_SHARE = 0.5
"""A module is divided into the blocks inside of it if they hold more than this share of it."""


def read_token_model(
    module: nn.Module,
    images: Tensor,
    *,
    backbone: str = "",
    blocks: Sequence[str] | None = None,
    forward: Callable[[Tensor], Any] | None = None,
) -> TokenModel:
    """Read a model: its blocks, their inputs, and which of their tokens are patches.

    Args:
        module: The model, or any module that holds it, such as a LightningModule.
        images: Images `[B, C, H, W]` that the model accepts; the first one is enough.
        backbone: Path of the submodule in which blocks are looked for (as in `get_submodule`).
        blocks: Paths of the blocks in `module`, in order, found if omitted.
        forward: Images to logits; `module` itself by default.

    Raises:
        UnreadableModelError: If no blocks are found, or those named do not fit.
    """
    _check_images(images)
    if forward is None:
        check_classifies(module)
    inside = submodule(module, backbone)
    with explanation_state(module), recorded_calls(module) as calls:
        pixels = images[:1].detach().repeat(_PROBE_IMAGES, 1, 1, 1).requires_grad_()
        logits = logits_of(_accepted(forward or module, pixels))
    _check_recorded(logits)
    reader = _Reader(module, inside, calls, logits, pixels)
    chosen = reader.blocks() if blocks is None else reader.named(module, blocks)
    entries = [reader.entry(chosen[0]), *chosen[1:]]
    levels = [reader.level(i, *pair) for i, pair in enumerate(zip(entries, chosen, strict=True))]
    return TokenModel(forward or module, tuple(levels), tuple(c.module for c in chosen))


def submodule(module: nn.Module, path: str, argument: str = "backbone") -> nn.Module:
    """Return the submodule at a path.

    Args:
        module: The module.
        path: The path, as in `get_submodule`.
        argument: The argument that gave it, for the message.

    Raises:
        UnreadableModelError: If there is none.
    """
    try:
        return module.get_submodule(path)
    except AttributeError:
        children = ", ".join(name for name, _ in module.named_children())
        raise UnreadableModelError(
            f"{type(module).__name__} has no submodule {path!r}; change `{argument}` to paths of "
            f"submodules (its children: {children})."
        ) from None


class _Reader:
    """The calls of one forward pass, and what the graph says about them."""

    def __init__(
        self,
        root: nn.Module,
        inside: nn.Module,
        calls: Sequence[Call],
        logits: Tensor,
        pixels: Tensor,
    ) -> None:
        self._root = root
        self._calls, self._paths, self._inside = calls, PathCounts(logits, pixels), inside
        self._pixels = edge_of(pixels)
        self._size = (pixels.shape[-2], pixels.shape[-1])

    def blocks(self) -> list[Call]:
        """Return the calls of the blocks, in order."""
        modules = set(self._inside.modules())
        inside = [call for call in self._calls if call.module in modules]
        found = [c for c in inside if self._is_stage(c) and _is_composed(c.module)]
        if not found:  # Without any branches, the layers with weights are what there is.
            found = [c for c in inside if self._carries_features(c) and _has_weights(c.module)]
        chosen = _innermost_that_matter([c for c in found if self._is_called_once(c)])
        if not chosen:
            raise UnreadableModelError(
                f"No blocks were found in {type(self._inside).__name__}: no module passes all "
                "tokens or feature maps on to the next; name the modules between which it does as "
                "`blocks`, or another `backbone`."
            )
        return chosen

    def named(self, module: nn.Module, paths: Sequence[str]) -> list[Call]:
        """Return the calls of modules that the user named."""
        chosen: list[Call] = []
        for path in paths:
            wanted = submodule(module, path, "blocks")
            calls = [c for c in self._calls if c.module is wanted]
            if len(calls) != 1 or self._view(calls[0]) is None:
                raise UnreadableModelError(
                    f"{path!r} in `blocks` was called {len(calls)} times with tokens [B, T, D] or "
                    "feature maps that carry the image; name modules that are called once."
                )
            chosen += calls
        return chosen

    def entry(self, block: Call) -> Call:
        """Return the call where the tokens z0 enter: the first block, or a norm right before it.

        Or a dropout, if it is a sibling of the blocks. A model that rearranges its tokens does so
        before z0.
        """
        current = block
        if self._reroll() is not None:
            return block
        for call in reversed(self._calls):
            before = call.returned.edge == current.received.edge
            parent = call.path.rpartition(".")[0]
            sibling = not parent or f"{block.path}.".startswith(f"{parent}.")
            same = call.received.shape == current.received.shape and not call.received.overwritten
            if (
                before
                and sibling
                and same
                and self._carries_features(call)
                and self._is_called_once(call)
            ):
                current = call
        return current

    def level(self, index: int, entry: Call, block: Call) -> Level:
        """Return what is to be remembered of a block, and of where its features enter."""
        view = self._view(entry)
        assert view is not None
        middle = next((c for c in self._calls if self._is_middle(c, block)), None)
        return Level(
            entry.module,
            entry.argument,
            view.axes,
            view.prefix,
            self._raster_order(index, view.length),
            None if middle is None else (middle.module, middle.argument),
        )

    def _reroll(self) -> Callable[[Tensor, int], Tensor] | None:
        """Return how timm's Hiera puts its tokens back into rows after a block, if this is one."""
        found = (getattr(module, "reroll", None) for module in self._inside.modules())
        return next((f for f in found if callable(f)), None)

    def _raster_order(self, level: int, length: int) -> Tensor | None:
        reroll = self._reroll()
        if reroll is None:
            return None
        return reroll(torch.arange(length)[None, :, None], max(0, level - 1)).flatten()

    def _is_middle(self, call: Call, block: Call) -> bool:
        outside = (block.received.edge, block.returned.edge)
        return (
            _contains(block.module, call.module)
            and call.received.edge not in outside
            and call.received.shape == block.received.shape
            and self._paths.carries_everything(call.received.edge)
            and self._is_called_once(call)
            and not call.received.overwritten
        )

    def _is_called_once(self, call: Call) -> bool:
        return sum(other.module is call.module for other in self._calls) == 1

    def _is_stage(self, call: Call) -> bool:
        """Whether everything goes into and out of a call, and branches in between."""
        first, second = call.received.edge, call.returned.edge
        return self._carries_features(call) and self._paths.branches_between(first, second)

    def _carries_features(self, call: Call) -> bool:
        both = (call.received, call.returned)
        return (
            all(self._paths.carries_everything(feature.edge) for feature in both)
            and call.received.edge != self._pixels
            and self._view(call) is not None
            and feature_view(call.returned.shape, self._size) is not None
            and not call.received.overwritten
        )

    def _view(self, call: Call) -> FeatureView | None:
        shape = call.received.shape
        if shape[0] != _PROBE_IMAGES or not self._paths.carries_everything(call.received.edge):
            return None
        declared = _declared_prefix(self._root, call.path)
        if declared is None:
            return feature_view(shape, self._size)
        # Some models join the prefix tokens after their blocks.
        return feature_view(shape, self._size, declared) or feature_view(shape, self._size, 0)


def _declared_prefix(root: nn.Module, path: str) -> int | None:
    """Return what the innermost module around a path that says so calls its prefix tokens."""
    while path:
        path = path.rpartition(".")[0]
        declared = getattr(root.get_submodule(path), "num_prefix_tokens", None)
        if isinstance(declared, int):
            return declared
    return None


def _innermost_that_matter(calls: Sequence[Call]) -> list[Call]:
    """Divide containers and stages into their blocks, but not blocks into their gates.

    Args:
        calls: Calls in the order in which they return, so that inner ones come first.
    """
    chosen: list[Call] = []
    for call in calls:
        inner = [c for c in chosen if _contains(call.module, c.module)]
        share = sum(_size(c.module) for c in inner) / max(1, _size(call.module))
        if share <= _INNER_SHARE:
            chosen = [c for c in chosen if c not in inner] + [call]
    return chosen


def _contains(outer: nn.Module, inner: nn.Module) -> bool:
    return outer is not inner and any(module is inner for module in outer.modules())


def _is_composed(module: nn.Module) -> bool:
    return sum(_has_weights(m) for m in module.modules()) >= 2


def _has_weights(module: nn.Module) -> bool:
    return any(p.dim() > 1 for p in module.parameters(recurse=False))


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _accepted(forward: Callable[[Tensor], Any], images: Tensor) -> Any:
    try:
        return forward(images)
    except REFUSALS as error:
        if is_out_of_memory(error):
            raise
        raise UnreadableModelError(
            f"The model does not accept images {tuple(images.shape[1:])}, {images.dtype} on "
            f"{images.device} ({type(error).__name__}: {error}); pass images of the size, type and "
            "device that it was built for."
        ) from error


def _check_images(images: Tensor) -> None:
    if images.dim() != 4 or not images.is_floating_point() or 0 in images.shape:
        raise UnreadableModelError(
            f"`images` must be a floating point tensor [B, C, H, W] with B >= 1 but is "
            f"{images.dtype} {tuple(images.shape)}."
        )


def _check_recorded(logits: Tensor) -> None:
    if not logits.requires_grad:
        raise UnreadableModelError(
            "The logits do not depend on the images in a differentiable way; the forward pass must "
            "not run under `torch.no_grad()` or detach its features."
        )
