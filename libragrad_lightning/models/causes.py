"""Why a model cannot be read: the one sentence that says so, and which argument helps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from libragrad_lightning.backward.graph import Edge, edge_of, nodes_inputs_first
from libragrad_lightning.models.calls import Call
from libragrad_lightning.models.errors import UnreadableModelError
from libragrad_lightning.models.feature_view import possible_axes

_UNSEEN = (
    "so that no module inside of it can be seen; explain the model that it was made from, or name "
    "modules outside of it as `blocks`"
)


def check_recorded(logits: Tensor, pixels: Tensor, calls: Sequence[Call]) -> None:
    """Refuse scores that do not depend on the images in a differentiable way.

    Raises:
        UnreadableModelError: Names where the graph ends.
    """
    behind = nodes_inputs_first([edge_of(logits)[0]]) if logits.requires_grad else []
    if edge_of(pixels)[0] in behind:
        return
    raise UnreadableModelError(
        "The logits do not depend on the images in a differentiable way: the graph "
        f"{_where_it_ends(pixels, calls)}, as under `torch.no_grad()`, `torch.inference_mode()` or "
        "behind `detach()`; pass a `forward` without them (weights may stay frozen by "
        "`requires_grad_(False)`)."
    )


def check_found(
    found: bool,
    inside: nn.Module,
    calls: Sequence[Call],
    images: int,
    uneven: Sequence[Call] = (),
) -> None:
    """Refuse a model without blocks.

    Args:
        found: Whether there are blocks.
        inside: The module in which they were looked for.
        calls: The calls of all modules.
        images: Number of images of the forward pass.
        uneven: The first calls of passes that carry all together, but are not built alike.

    Raises:
        UnreadableModelError: Says why there are none.
    """
    if not found:
        raise UnreadableModelError(
            f"No blocks were found in {_why_not(inside, calls, images, uneven)}."
        )


def _why_not(inside: nn.Module, calls: Sequence[Call], images: int, uneven: Sequence[Call]) -> str:
    name = type(inside).__name__
    scripted = [m for m in inside.modules() if isinstance(m, torch.jit.ScriptModule)]
    if scripted:
        return f"{name}: {_script_name(scripted[0])} was compiled by TorchScript, {_UNSEEN}"
    modules = set(inside.modules())
    own = [call for call in calls if call.module in modules]
    if not own:
        return (
            f"{name}: none of its modules received anything that depends on the images; pass the "
            "path of a module that does as `backbone`"
        )
    if uneven:
        return (
            f"{name}: images go through {len(uneven)} passes of different forms "
            f"({', '.join(call.path for call in uneven)}), as through members of an ensemble; pass "
            "a `forward` that runs one of them"
        )
    rows = next((call for call in own if _has_more_rows(call, images)), None)
    if rows is not None:
        return (
            f"{name}: {rows.path} works on {rows.received.shape[0] // images} rows for each image, "
            "such as crops, frames or windows in one batch; pass a `forward` that runs one of "
            "them, or name modules that work on whole images as `blocks`"
        )
    return (
        f"{name}: no module passes all tokens or feature maps of the images on to the next; name "
        "the modules between which it does as `blocks`, or another `backbone`"
    )


def _has_more_rows(call: Call, images: int) -> bool:
    shape = call.received.shape
    several = len(shape) > 2 and shape[0] > images and shape[0] % images == 0
    return several and not possible_axes(shape, images)


def _script_name(module: nn.Module) -> str:
    return str(getattr(module, "original_name", type(module).__name__))


def _where_it_ends(pixels: Tensor, calls: Sequence[Call]) -> str:
    """Return in which module the graph of the images ends, or behind which."""
    start = edge_of(pixels)[0]
    last: Call | None = None
    for call in calls:
        if _comes_from(call.returned.edge, start):
            last = call
    if last is None:
        return "ends before any module returns something"
    path = last.path or type(last.module).__name__
    return f"ends behind {path}"


def _comes_from(edge: Edge, start: object) -> bool:
    return edge[0] is not None and start in nodes_inputs_first([edge[0]])
