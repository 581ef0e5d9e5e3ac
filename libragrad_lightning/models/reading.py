"""Reads where the features of a model are, from one forward pass of it.

No model is known by name, and nothing that it declares is believed: blocks are found in the
recorded graph, and where their tokens lie is measured. The inputs of the blocks are the levels at
which attributions are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from libragrad_lightning.backward import ConstantObserver, LibraGradError
from libragrad_lightning.backward.graph import Edge
from libragrad_lightning.models.blocks import Block, BlockFinder, entry_point
from libragrad_lightning.models.calls import Call, Feature, recorded_calls
from libragrad_lightning.models.causes import check_found, check_recorded
from libragrad_lightning.models.errors import UnreadableModelError
from libragrad_lightning.models.feature_view import FeatureView, joined_features, possible_axes
from libragrad_lightning.models.geometry import Located, located_levels
from libragrad_lightning.models.levels import Level
from libragrad_lightning.models.logits import check_classifies, logits_of
from libragrad_lightning.models.measuring import order_of
from libragrad_lightning.models.noise import noise_like
from libragrad_lightning.models.places import other_image
from libragrad_lightning.models.recording import Recording
from libragrad_lightning.models.refusals import REFUSALS, is_out_of_memory, unless_refused
from libragrad_lightning.models.state import explanation_state
from libragrad_lightning.models.token_model import TokenModel

_PROBE_IMAGES = 2
"""So that an axis of length one cannot be taken for the batch."""
_MOST_READ_OUT = 8
"""Scores that depend on more tokens are read from an average, not from tokens of their own."""


def read_token_model(
    module: nn.Module,
    images: Tensor,
    *,
    backbone: str = "",
    blocks: Sequence[str] | None = None,
    forward: Callable[[Tensor], Any] | None = None,
) -> TokenModel:
    """Read a model: its blocks, their inputs, and where their tokens lie.

    Args:
        module: The model, or any module that holds it, such as a LightningModule.
        images: Images `[B, C, H, W]` that the model accepts; the first one is enough.
        backbone: Path of the submodule in which blocks are looked for (as in `get_submodule`).
        blocks: Paths of the blocks in `module`, in order, found if omitted.
        forward: Images to logits; `module` itself by default.

    Raises:
        UnreadableModelError: If no blocks are found, those named do not fit, or their tokens lie
            nowhere in the image.
    """
    _check_images(images)
    if forward is None:
        check_classifies(module)
    inside = submodule(module, backbone)
    run = forward or module
    with explanation_state(module):
        with recorded_calls(module) as calls, ConstantObserver():
            # A subclass of tensors would hide from the graph that it is a leaf.
            image = images[:1].detach().as_subclass(Tensor)
            pixels = image.repeat(_PROBE_IMAGES, 1, 1, 1).requires_grad_()
            logits = logits_of(_accepted(run, pixels))
        check_recorded(logits, pixels, calls)
        finder = BlockFinder(inside, calls, logits, pixels)
        if blocks is None:
            passes = finder.passes()
        else:
            passes = [finder.of_modules(_named(finder, calls, module, blocks))]
        check_found(bool(passes and passes[0]), inside, calls, _PROBE_IMAGES, finder.uneven)
        entries = _entries(finder, passes)
        pairs = zip(entries, zip(*passes, strict=True), strict=True)
        levels = [_level(finder, calls, blocks) for calls, blocks in pairs]
        recorded = [[call.received.tensor for call in calls] for calls in entries]
        # Some graphs, as those of reentrant checkpoints, give no gradients of inner tensors.
        readout = unless_refused(partial(_read_out, logits, passes[0][-1].leaves.edge)) or ()
        located = located_levels(run, levels, recorded, image, readout)
        model = _located_model(run, levels, passes, located, readout, images)
        _check_order(model, image, located)
        ends = [chain[-1].leaves for chain in passes]
        unless_refused(partial(_learn, model, logits, recorded, located, ends, images.shape[1:]))
    return model


def _check_order(model: TokenModel, image: Tensor, located: Sequence[Located]) -> None:
    """Refuse a model whose tokens change their order, unless they do so in all images alike."""
    followed = [level for level in located if level.by == "graph"]
    if all(part.order is None for level in followed for part in _passes(level)):
        return
    again = [level for level in model.located(other_image(image)) if level.by == "graph"]
    if [_orders(level) for level in again] != [_orders(level) for level in followed]:
        raise UnreadableModelError(
            "The order of tokens in this model depends on what an image holds, or is drawn at "
            "random, so that their places are not those in other images; name the modules before "
            "which tokens keep their order as `blocks`."
        )


def _passes(level: Located) -> Sequence[FeatureView]:
    return () if level.view is None else level.view.passes


def _orders(level: Located) -> list[tuple[object, ...]]:
    return [order_of(view) for view in _passes(level)]


def _learn(
    model: TokenModel,
    logits: Tensor,
    recorded: Sequence[Sequence[Tensor]],
    located: Sequence[Located],
    ends: Sequence[Feature],
    size: torch.Size,
) -> None:
    """Find where images and tokens are in operations, while the recorded graph is there."""
    pairs = [
        (parts, level.view)
        for parts, level in zip(recorded, located, strict=True)
        if level.view is not None
    ]
    features = tuple(joined_features(parts) for parts, _ in pairs)
    views = tuple(view for _, view in pairs)
    output = joined_features([end.tensor for end in ends])
    if not any(end.overwritten for end in ends):
        model.learn(Recording(logits, features, views, (), output), size)


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


def _named(
    finder: BlockFinder, calls: Sequence[Call], module: nn.Module, paths: Sequence[str]
) -> list[Call]:
    """Return the calls of modules that the user named; all of them if a module runs several times.

    Raises:
        UnreadableModelError: If one of them does not receive all that is known of the images.
    """
    chosen: list[Call] = []
    for path in paths:
        wanted = submodule(module, path, "blocks")
        found = [c for c in calls if c.module is wanted]
        if not found:
            raise UnreadableModelError(
                f"{path!r} in `blocks` received nothing that depends on the images; name modules "
                "that do, each of which passes all features on to the next."
            )
        if not all(map(finder.carries_features, found)):
            shapes = ", ".join(str(tuple(c.received.shape)) for c in found)
            raise UnreadableModelError(
                f"{path!r} in `blocks` received {shapes}, which are no tokens or feature maps, "
                "or not all that the logits know of the images; name modules that receive all."
            )
        chosen += found
    return sorted(chosen, key=lambda call: call.start)


def _entries(finder: BlockFinder, passes: Sequence[Sequence[Block]]) -> list[list[Call]]:
    """Return the calls that features enter at every level, one for each pass."""
    chains = [[finder.entry(chain[0]), *(block.call for block in chain[1:])] for chain in passes]
    return [list(calls) for calls in zip(*chains, strict=True)]


def _level(finder: BlockFinder, entries: Sequence[Call], blocks: Sequence[Block]) -> Level:
    """Return where features enter a block, in all passes."""
    mid_residuals = tuple(entry_point(b.mid_residual) for b in blocks if b.mid_residual is not None)
    return Level(
        tuple(map(entry_point, entries)),
        tuple(possible_axes(entries[0].received.shape, _PROBE_IMAGES)),
        mid_residuals if len(mid_residuals) == len(blocks) else None,
        blocks[0].rule,
        all(map(finder.is_whole, entries)),
    )


def _read_out(logits: Tensor, leaves: Edge) -> tuple[int, ...]:
    """Return the tokens of the last block's output on which the logits depend, if they are few."""
    shape = leaves[0]._input_metadata[leaves[1]].shape
    axes = possible_axes(shape, _PROBE_IMAGES)
    if not axes:
        return ()
    edge = [GradientEdge(*leaves)]
    (gradient,) = torch.autograd.grad(logits, edge, noise_like(logits), retain_graph=True)
    read = (axes[0].sequence(gradient)[0] != 0).any(dim=1).nonzero()[:, 0].tolist()
    return tuple(read) if len(read) <= _MOST_READ_OUT else ()


def _located_model(
    run: Callable[[Tensor], Any],
    levels: Sequence[Level],
    passes: Sequence[Sequence[Block]],
    located: Sequence[Located],
    readout: tuple[int, ...],
    images: Tensor,
) -> TokenModel:
    """Return the model with the levels whose tokens lie in the image."""
    views = {i: level.view for i, level in enumerate(located) if level.view is not None}
    if not views:
        names = type(passes[0][0].call.module).__name__
        raise UnreadableModelError(
            f"The {len(levels)} blocks found ({names}) work on tokens that lie in no grid of the "
            "image, such as latents that read patches by attention, or a part of the patches; name "
            "modules that receive all patches, or feature maps, as `blocks`."
        )
    model = TokenModel(
        run,
        tuple(levels[i] for i in views),
        tuple(passes[0][i].call.module for i in views),
        tuple(chain[max(views)].end for chain in passes),
        readout,
        tuple(located[i].by for i in views),
        len(levels) - len(views),
    )
    model.set_views(images, tuple(views.values()))
    return model


def _accepted(forward: Callable[[Tensor], Any], images: Tensor) -> Any:
    try:
        return forward(images)
    except REFUSALS as error:
        if is_out_of_memory(error) or isinstance(error, LibraGradError):
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
