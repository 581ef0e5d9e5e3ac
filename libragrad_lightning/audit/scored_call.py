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
    OF_CLASSES,
    READINGS,
    SIMILARITIES,
)
from libragrad_lightning.audit.matching import (
    Match,
    labeling_use,
    matches_in,
    rows_of_other_labels,
)
from libragrad_lightning.audit.trace import Operation
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
        operations: How the step makes them; empty if it does not.
        made: The scores that the step made, the tensor itself, or None.
        scores: A copy of the scores, as the call returned them or as the step made them.
        functions: The names of functions that were given the scores, losses first.
        labels: What a loss compared the scores with, or None.
        compares: Whether the step compares the images with what else their batch holds, such as
            captions, or with labels that are not those of the batch.
    """

    call: ImageCall
    images_way: Way
    images: Tensor
    output_way: Way | None
    operations: tuple[Operation, ...]
    made: Tensor | None
    scores: Tensor
    functions: tuple[str, ...]
    labels: Tensor | None
    compares: bool = False

    @property
    def row_ways(self) -> tuple[Way, ...]:
        """The ways to other arguments with a row for every image."""
        rows = len(self.images)
        return tuple(
            way
            for way, t in tensors(self.call.arguments)
            if way != self.images_way and t.dim() > 0 and len(t) == rows
        )

    @property
    def name(self) -> str:
        """The call, as messages name it."""
        return f"`{self.call.path}`" if self.call.path else type(self.call.module).__name__


def scored_call(root: nn.Module, step: WatchedStep, path: str | None) -> ScoredCall | None:
    """Return what a step computed its scores with; None if it showed images to no module.

    Args:
        root: The module whose step was watched.
        step: What was seen.
        path: The path of the only module that is looked at, or None.

    Raises:
        AuditError: If several tensors may be the scores, or none of them is.
    """
    if step.error is not None:
        raise AuditError(
            f"LibraGradAudit could not watch the validation step ({type(step.error).__name__}: "
            f"{step.error}); {_PASS_FORWARD}."
        ) from step.error
    calls = _of_whole_images(step, [c for c in step.calls if path is None or c.path == path])
    if not calls:
        if path is None and any(use.labels is not None for use in step.uses):
            raise AuditError(
                f"The validation step of {type(root).__name__} computes its scores without showing "
                "images [B, C, H, W] to one of its submodules; keep the network as an attribute of "
                "the module, or pass `forward`, a function `(module, images) -> scores`."
            )
        return None
    matches = matches_in(step, calls)
    chosen = _chosen(matches, step)
    if chosen is not None:
        same = [m for m in matches if (m.call, m.way) == (chosen.call, chosen.way)]
        return _at_output(step, chosen.call, chosen.way, same)
    if path is not None:
        return _at_output(step, *_only_scores(calls[:1]), ())
    made = _made_by_step(step, calls)
    if made is not None:
        return made
    call, way = _only_scores(calls)
    _refuse_embeddings(step, call, way)
    return _at_output(step, call, way, ())


def _of_whole_images(step: WatchedStep, calls: list[ImageCall]) -> list[ImageCall]:
    """Leave out calls with other tensors, such as heads of attention, if some have the images."""
    whole = {t.shape for _, t in tensors(step.batch) if not t.is_nested and t.dim() == 4}
    with_whole = [c for c in calls if any(t.shape in whole for _, t in c.images)]
    return with_whole or calls


def _chosen(matches: Sequence[Match], step: WatchedStep) -> Match | None:
    """Return the match that losses, and then other readers of scores, agree on."""
    losses = _distinct([m for m in matches if m.use.name in LOSSES])
    readings = _distinct([m for m in matches if m.use.name in CLASS_READINGS])
    both = [m for m in losses if any((m.call, m.way) == (r.call, r.way) for r in readings)]
    others = [use.name for use in step.uses if use.labels is not None]
    if not losses and others and not any(name in OF_CLASSES for name in others):
        readings = []  # Quantities are made of probabilities.
    weak = [] if others else _distinct([m for m in matches if m.use.name in READINGS])
    for agreed in (losses, both, [] if losses else readings, [] if losses or readings else weak):
        if len(agreed) == 1:
            return agreed[0]
    several = losses or readings
    if several:
        raise _ambiguous([(m.call, m.way) for m in several])
    return None


def _distinct(matches: Sequence[Match]) -> list[Match]:
    found: list[Match] = []
    for match in matches:
        if not any(_is_again(match, m) for m in found):
            found.append(match)
    return found


def _is_again(match: Match, before: Match) -> bool:
    """Whether a match is that of the same scores, or of these turned: of texts for images."""
    if match.call is not before.call:
        return False
    scores, turned = match.call.scores[match.way], match.call.scores[before.way].mT
    return match.way == before.way or torch.equal(scores, turned)


def _at_output(
    step: WatchedStep, call: ImageCall, way: Way, matches: Sequence[Match]
) -> ScoredCall:
    images_way, images = _images(call)
    use = labeling_use([m.use for m in matches], step)
    # A step without a loss that was recognized may still squash its scores before one of its own.
    ordered = sorted(matches, key=lambda m: (m.use is not use, m.use.name not in LOSSES))
    names = tuple(name for m in ordered for name in (*m.squashed, m.use.name))
    labels = None if use is None else use.labels
    if labels is None and (others := rows_of_other_labels(step, len(images))):
        raise AuditError(
            f"{call.path or type(call.module).__name__} is shown {len(images)} images for {others} "
            f"labels, so scores are made of several images; {_PASS_FORWARD}."
        )
    return ScoredCall(call, images_way, images, way, (), None, call.scores[way], names, labels)


def _made_by_step(step: WatchedStep, calls: Sequence[ImageCall]) -> ScoredCall | None:
    """Return the call whose output the step makes scores of, as from features and a head."""
    rows = len(_images(calls[-1])[1])
    uses = [u for u in step.uses if u.name in LOSSES | CLASS_READINGS and _could_be(u, rows)]
    losses = [use for use in uses if use.labels is not None]
    if not uses or not (losses or all(u.name in CLASS_READINGS for u in uses)):
        return None
    use = labeling_use(losses, step) or uses[-1]
    source, squash = step.origins.unsquashed(use.scores)
    operations = [] if squash == "softmin" else step.trace.to(source, use.position)
    if not operations:
        if not losses:
            return None
        raise AuditError(
            f"The validation step compares labels with scores {tuple(use.values.shape)} that it "
            "makes of what its modules return in a way that cannot be followed; pass `forward`, a "
            "function `(module, images) -> scores`."
        )
    if len(calls) > 1:
        paths = ", ".join(dict.fromkeys(call.path or "forward" for call in calls))
        raise AuditError(
            f"The scores of the validation step come from {len(calls)} calls that are shown images "
            f"({paths}); {_PASS_FORWARD}."
        )
    images_way, images = _images(calls[0])
    scores = use.values if source is use.scores else source.detach().clone()
    names = tuple(
        n for n in (squash, use.name, *(u.name for u in uses if u.scores is use.scores)) if n
    )
    return ScoredCall(
        calls[0],
        images_way,
        images,
        None,
        tuple(operations),
        source,
        scores,
        names,
        use.labels,
        _compares(step, operations, use),
    )


def _compares(step: WatchedStep, operations: Sequence[Operation], use: Use) -> bool:
    """Whether scores, or labels, say what belongs together in a batch."""
    if any(step.trace.is_of_batch(t) for operation in operations for t in operation.given):
        return True
    return use.target is not None and not step.trace.is_of_batch(use.target)


def _could_be(use: Use, rows: int) -> bool:
    scores = use.scores
    return scores.is_floating_point() and scores.dim() in (1, 2) and len(scores) == rows


def _scores(call: ImageCall) -> list[Way]:
    """Return the ways to what has the form of scores, `[B]` only if nothing is `[B, C]`."""
    several = [way for way, t in call.scores.items() if t.dim() > 1]
    return several or list(call.scores)


def _only_scores(calls: Sequence[ImageCall]) -> tuple[ImageCall, Way]:
    found = [(call, way) for call in calls for way in _scores(call)]
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
    found = [(w, t) for w, t in found if str(w[-1]).lower() in IMAGE_NAMES] or found
    found = [(w, t) for w, t in found if t.shape[1] > 1] or found
    if len(found) > 1:
        shapes = ", ".join(str(tuple(t.shape)) for _, t in found)
        raise AuditError(
            f"{call.path or type(call.module).__name__} is shown {len(found)} tensors that may be "
            f"the images ({shapes}); {_PASS_FORWARD}."
        )
    return found[0]


def _refuse_embeddings(step: WatchedStep, call: ImageCall, way: Way) -> None:
    output = call.returned[way]
    compared = step.trace.goes_on_from(output, {*SIMILARITIES, "linear"})
    if compared:
        raise AuditError(
            f"{call.path or type(call.module).__name__} returns embeddings {tuple(output.shape)} "
            "with which the validation step goes on, and no scores; pass `forward`, a function "
            "`(module, images) -> scores`, such as a head, or similarities to prototypes."
        )


def _ambiguous(found: Sequence[tuple[ImageCall, Way]]) -> AuditError:
    places = ", ".join(
        (call.path or "forward") + "".join(f"[{key!r}]" for key in way) for call, way in found
    )
    return AuditError(
        f"The validation step has {len(found)} tensors that may be the scores ({places}); pass "
        "`forward`, a function `(module, images) -> scores` that returns one of them."
    )
