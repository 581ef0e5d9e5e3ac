"""Finds in a watched step the call that turned images into the scores that the step used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from libragrad_lightning.audit.batches import IMAGE_NAMES
from libragrad_lightning.audit.errors import AuditError
from libragrad_lightning.audit.functions import (
    CLASS_READINGS,
    LOSSES,
    READINGS,
    SIMILARITIES,
)
from libragrad_lightning.audit.trees import Way, described, tensors
from libragrad_lightning.audit.watch import ImageCall, Use, WatchedStep

_PASS_FORWARD = "pass `forward`, the path of a submodule or a function `(module, images) -> scores`"


@dataclass(frozen=True)
class ScoredCall:
    """What a step computed its scores with.

    Attributes:
        call: The call that was shown the images.
        images_way: The way to the images in its arguments.
        images: The images, `[B, C, H, W]`.
        output_way: The way to the scores in its output; None if the step makes scores of the output
            first.
        use: Which function the step gave the scores; None if none was seen.
        scores: The scores as the call returned them; if the step makes them, as they were before
            anything squashed them.
        functions: The names of functions that were given the scores, losses first.
        labels: What a loss compared the scores with, or None.
        reduced: Whether they were computed in reduced precision.
    """

    call: ImageCall
    images_way: Way
    images: Tensor
    output_way: Way | None
    use: Use | None
    scores: Tensor
    functions: tuple[str, ...]
    labels: Tensor | None
    reduced: bool

    @property
    def name(self) -> str:
        """The call, as messages name it."""
        return f"`{self.call.path}`" if self.call.path else type(self.call.module).__name__


@dataclass(frozen=True)
class _Match:
    use: Use
    call: ImageCall
    way: Way


def scored_call(root: nn.Module, step: WatchedStep, path: str | None) -> ScoredCall | None:
    """Return what a step computed its scores with; None if it showed images to no module.

    Args:
        root: The module whose step was watched.
        step: What was seen.
        path: The path of the only module that is looked at, or None.

    Raises:
        AuditError: If several tensors may be the scores, or none of them is.
    """
    calls = [call for call in step.calls if path is None or call.path == path]
    if not calls:
        if path is None and any(use.labels is not None for use in step.uses):
            raise AuditError(
                f"The validation step of {type(root).__name__} computes its scores without showing "
                "images [B, C, H, W] to one of its submodules; keep the network as an attribute of "
                "the module, or pass `forward`, a function `(module, images) -> scores`."
            )
        return None
    matches = _matches(step, calls)
    chosen = _chosen(matches)
    if chosen is not None:
        uses = tuple(m.use for m in matches if (m.call, m.way) == (chosen.call, chosen.way))
        return _at_output(step, chosen.call, chosen.way, uses)
    if path is not None:
        return _at_output(step, *_only_scores(calls[:1]), ())
    going_on = _going_on(step, calls)
    if going_on is not None:
        return going_on
    call, way = _only_scores(calls)
    _refuse_embeddings(step, call, way)
    return _at_output(step, call, way, ())


def _matches(step: WatchedStep, calls: Sequence[ImageCall]) -> list[_Match]:
    """Return which functions were given what calls returned."""
    returned = [(call, way, t) for call in calls for way, t in _scores(call)]
    found = []
    for use in step.uses:
        if use.name in SIMILARITIES:
            continue
        trail = [tensor for _, tensor in step.origins.trail(use.scores)]
        same = [(call, way) for call, way, t in returned if any(u is t for u in trail)]
        # Rearranged, or squashed by a function of the step's own, they have the same values.
        same = same or [(call, way) for call, way, t in returned if _has_values_of(trail[-1], t)]
        found += [_Match(use, *place) for place in same[:1]]
    return found


def _has_values_of(tensor: Tensor, scores: Tensor) -> bool:
    """Whether a tensor holds scores, or the probabilities that they stand for."""
    if tensor.numel() != scores.numel() or tensor.dtype != scores.dtype:
        return False
    values = tensor.detach().reshape(scores.shape)
    squashed = (scores, scores.softmax(-1), scores.log_softmax(-1), scores.sigmoid())
    return any(torch.allclose(values, s.detach(), rtol=1e-5, atol=1e-7) for s in squashed)


def _chosen(matches: Sequence[_Match]) -> _Match | None:
    """Return the match that losses, and then other readers of scores, agree on."""
    losses = _distinct([m for m in matches if m.use.name in LOSSES])
    readings = _distinct([m for m in matches if m.use.name in READINGS])
    both = [m for m in losses if any((m.call, m.way) == (r.call, r.way) for r in readings)]
    for agreed in (losses, both, [] if losses else readings):
        if len(agreed) == 1:
            return agreed[0]
    several = losses or readings
    if several:
        raise _ambiguous([(m.call, m.way) for m in several])
    return None


def _distinct(matches: Sequence[_Match]) -> list[_Match]:
    found: list[_Match] = []
    for match in matches:
        if all((m.call, m.way) != (match.call, match.way) for m in found):
            found.append(match)
    return found


def _at_output(step: WatchedStep, call: ImageCall, way: Way, uses: Sequence[Use]) -> ScoredCall:
    images_way, images = _images(call)
    scores = dict(tensors(call.output))[way]
    ordered = sorted(uses, key=lambda use: use.name not in LOSSES)
    labels = next((use.labels for use in ordered if use.labels is not None), None)
    names = tuple(use.name for use in ordered)
    use = ordered[0] if ordered else None
    return ScoredCall(call, images_way, images, way, use, scores, names, labels, step.reduced)


def _going_on(step: WatchedStep, calls: Sequence[ImageCall]) -> ScoredCall | None:
    """Return the call whose output the step makes scores of, as from features and a head."""
    rows = len(_images(calls[-1])[1])
    uses = [u for u in step.uses if u.name in LOSSES | CLASS_READINGS and _could_be(u, rows)]
    losses = [use for use in uses if use.name in LOSSES]
    if not uses:
        return None
    if len(calls) > 1:
        paths = ", ".join(dict.fromkeys(call.path or "forward" for call in calls))
        raise AuditError(
            f"The scores of the validation step come from {len(calls)} calls that are shown images "
            f"({paths}); {_PASS_FORWARD}."
        )
    use = (losses or uses)[-1]
    images_way, images = _images(calls[0])
    names = tuple(u.name for u in (use, *uses) if u.scores is use.scores)
    scores = step.origins.unsquashed(use.scores)[0]
    reduced = step.reduced
    return ScoredCall(calls[0], images_way, images, None, use, scores, names, use.labels, reduced)


def _could_be(use: Use, rows: int) -> bool:
    scores = use.scores
    return scores.dim() in (1, 2) and len(scores) == rows


def _scores(call: ImageCall) -> list[tuple[Way, Tensor]]:
    """Return what a call returned that has the form of scores."""
    rows = len(call.images[0][1])
    found = [
        (way, t)
        for way, t in tensors(call.output)
        if t.is_floating_point()
        and t.dim() > 0
        and len(t) == rows
        and all(side == 1 for side in t.shape[2:])
    ]
    return [(way, t) for way, t in found if t.dim() > 1] or found


def _only_scores(calls: Sequence[ImageCall]) -> tuple[ImageCall, Way]:
    found = [(call, way) for call in calls for way, _ in _scores(call)]
    named = [(call, way) for call, way in found if way and way[-1] == "logits"]
    chosen = named if len(named) == 1 else found
    if len(chosen) == 1:
        return chosen[0]
    if not found:
        call = calls[-1]
        raise AuditError(
            f"{call.path or type(call.module).__name__} is shown the images and returns no scores "
            f"[B, C] but {described(call.output)}; {_PASS_FORWARD}."
        )
    raise _ambiguous(found)


def _images(call: ImageCall) -> tuple[Way, Tensor]:
    found = list(call.images)
    if len(found) > 1:
        found = [(w, t) for w, t in found if str(w[-1]).lower() in IMAGE_NAMES] or found
    if len(found) > 1:
        found = [(w, t) for w, t in found if t.shape[1] > 1] or found
    if len(found) > 1:
        shapes = ", ".join(str(tuple(t.shape)) for _, t in found)
        raise AuditError(
            f"{call.path or type(call.module).__name__} is shown {len(found)} tensors that may be "
            f"the images ({shapes}); {_PASS_FORWARD}."
        )
    return found[0]


def _refuse_embeddings(step: WatchedStep, call: ImageCall, way: Way) -> None:
    output = dict(tensors(call.output))[way]
    compared = any(
        tensor is output
        for use in step.uses
        if use.name in SIMILARITIES
        for _, tensor in step.origins.trail(use.scores)
    )
    if compared:
        raise AuditError(
            f"{call.path or type(call.module).__name__} returns embeddings {tuple(output.shape)}, "
            "which the validation step compares with each other, and no scores; pass `forward`, a "
            "function `(module, images) -> scores` such as similarities to prototypes."
        )


def _ambiguous(found: Sequence[tuple[ImageCall, Way]]) -> AuditError:
    places = ", ".join(
        (call.path or "forward") + "".join(f"[{key!r}]" for key in way) for call, way in found
    )
    return AuditError(
        f"The validation step has {len(found)} tensors that may be the scores ({places}); pass "
        "`forward`, a function `(module, images) -> scores` that returns one of them."
    )
