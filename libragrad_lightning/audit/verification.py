"""Finds the forward pass that gives the scores of a validation step, and checks that it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from libragrad_lightning.audit.errors import AuditError
from libragrad_lightning.audit.precision import floating_dtype
from libragrad_lightning.audit.replay import CallReplay, DirectCall, Forward, ModelCall, PairReplay
from libragrad_lightning.audit.samples import plain
from libragrad_lightning.audit.scored_call import ScoredCall
from libragrad_lightning.audit.trace import continuation
from libragrad_lightning.audit.trees import Way, at, mapped
from libragrad_lightning.models import called_with_origins, is_out_of_memory, unless_refused

_EXACT, _ROUNDED = 1e-4, 2**-4
"""How far scores may be from those of the step, of the largest of them: in full and in reduced
precision. Fused kernels of `torch.nn` are not used where gradients are recorded."""


_ADVICE_ON_TEXTS = (
    "; if these are texts that belong to the images, show both to one module, as in "
    "`model(images, texts)`, or compare images with `libragrad_lightning.prompts.text_prompts`"
)


@dataclass(frozen=True)
class Replayed:
    """A forward pass that gives the scores of a step.

    Attributes:
        call: The forward pass.
        random: Whether its scores differ from one time to the next.
    """

    call: ModelCall
    random: bool = False


def replayed(
    root: nn.Module, found: ScoredCall, owners: Mapping[int, tuple[nn.Module, str]]
) -> Replayed:
    """Return the forward pass that gives the scores of a step.

    Call it outside of inference mode, in the state in which models are explained.

    Args:
        root: The module whose step was watched.
        found: What it computed its scores with.
        owners: The modules that own parameters, and their names, by the ids of the parameters.

    Raises:
        AuditError: If it does not give the scores of the step, or those of an image depend on
            others.
    """
    images = _copied(found.images).to(floating_dtype(root))
    ways = found.row_ways
    others = tuple(_copied(at(found.call.arguments, way)) for way in ways)
    forward = _call_replay(found, ways, owners)
    scores = forward(images.clone(), others)
    if _is_same(scores, found.scores, found):
        wrong = _dependence(forward, images, others, found) or _companions(found)
    else:
        wrong = _difference(scores, found)
    if wrong is None:
        return Replayed(_measured(forward, images, others, found))
    pairs = PairReplay(forward)
    paired = unless_refused(partial(_gives_pairs, pairs, images, others, found))
    if paired:
        return Replayed(ModelCall(pairs, _squashing(pairs, images, others), others, True))
    if _distance(forward(images, others), forward(images, others)) == 0:
        raise wrong
    squashed = _squashing(forward, images, others)
    return Replayed(ModelCall(forward, squashed, others, bool(others)), random=True)


def check_batch(call: ModelCall, root: nn.Module, found: ScoredCall) -> None:
    """Check that the forward pass that another batch has shown gives the scores of this one.

    Raises:
        AuditError: If something that changes from batch to batch decides about scores.
    """
    images = _copied(found.images).to(floating_dtype(root))
    others = tuple(_copied(at(found.call.arguments, way)) for way in found.row_ways)
    scores, expected = call.forward(images, others), found.scores
    if isinstance(call.forward, PairReplay) and _is_square(expected):
        expected = expected.diagonal()[:, None]
    if not _is_same(scores, expected, found):
        raise AuditError(
            f"What the validation step computes beside the images that {found.name} is shown "
            f"changes from batch to batch (largest difference {_distance(scores, expected):.2g}"
            f"){_ADVICE_ON_TEXTS if _is_square(expected) else ''}; pass `forward`, a function "
            "`(module, images) -> scores`."
        )


def _gives_pairs(
    pairs: PairReplay, images: Tensor, others: tuple[Tensor, ...], found: ScoredCall
) -> bool:
    """Whether a score of the step is that of a pair: an image, and what belongs to it."""
    square = _is_square(found.scores) and _is_of_pairs(found.labels, len(images))
    if not others or not square:
        return False
    expected = found.scores.diagonal()[:, None]
    alone = pairs(images[-1:], tuple(t[-1:] for t in others))
    together = pairs(images, others)
    return _is_same(together, expected, found) and _is_same(alone, expected[-1:], found)


def _is_square(scores: Tensor) -> bool:
    return scores.dim() == 2 and scores.shape[0] == scores.shape[1] > 1


def _is_of_pairs(labels: Tensor | None, rows: int) -> bool:
    """Whether a loss was told that what belongs to an image has the number of the image."""
    if labels is None:
        return True
    classes = labels.argmax(1) if labels.dim() == 2 else labels
    return torch.equal(classes.long().cpu(), torch.arange(rows))


def direct(function: Callable[[Tensor], Any], name: str, images: Tensor) -> ModelCall:
    """Return the forward pass that a user or `forward` defines."""
    call = DirectCall(function, name)
    return ModelCall(call, _squashing(call, images, ()))


def _call_replay(
    found: ScoredCall, ways: tuple[Way, ...], owners: Mapping[int, tuple[nn.Module, str]]
) -> CallReplay:
    def kept(way: Way, leaf: Any) -> Any:
        if way == found.images_way or way in ways:
            return None
        return _copied(leaf) if isinstance(leaf, Tensor) else leaf

    call, goes_on = found.call, None
    if found.made is not None:
        goes_on = continuation(found.operations, call.returned, found.made, owners)
    arguments = mapped(call.arguments, kept)
    way = found.output_way or ()
    return CallReplay(call.module, arguments, found.images_way, ways, way, goes_on)


def _measured(
    forward: Forward, images: Tensor, others: tuple[Tensor, ...], found: ScoredCall
) -> ModelCall:
    """Return a forward pass with what it depends on."""
    needs = bool(others)
    if needs and len(images) > 1:
        turned = tuple(t.roll(1, 0) for t in others)
        needs = not _is_same(forward(images, turned), found.scores, found)
    return ModelCall(forward, _squashing(forward, images, others), others, needs)


def _difference(scores: Tensor, found: ScoredCall) -> AuditError:
    if not found.images.is_floating_point():
        return AuditError(
            f"{found.name} is shown {str(found.images.dtype).removeprefix('torch.')} images and "
            "gives floating ones of the same values other scores, so they cannot be explained; "
            "show it floating images, or pass `forward`, a function `(module, images) -> scores` "
            "that does what it does to these."
        )
    return AuditError(
        f"The validation step showed {found.name} images and got other scores than it gives for "
        f"the same images now (largest difference {_distance(scores, found.scores):.2g}), so "
        "something beside them decides, such as weights that the step exchanges; validate these "
        "with a callback (`WeightAveraging`) or in a module of their own, or pass `forward`, a "
        "function `(module, images) -> scores`."
    )


def _dependence(
    forward: Forward, images: Tensor, others: tuple[Tensor, ...], found: ScoredCall
) -> AuditError | None:
    """Return what is wrong if the scores of an image depend on its batch."""
    rows = 1 if len(images) > 1 else 2
    expected = found.scores[:1].expand(rows, *found.scores.shape[1:])
    few = [t[:1].expand(rows, *t.shape[1:]) for t in (images, *others)]
    try:
        scores = forward(few[0], tuple(few[1:]))
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        if is_out_of_memory(error):
            raise
        return AuditError(
            f"The validation step makes scores of what {found.name} returns in a way that needs "
            f"a batch of {len(images)} ({type(error).__name__}: {error}); pass `forward`, a "
            "function `(module, images) -> scores`."
        )
    if _is_same(scores, expected, found):
        return None
    return AuditError(
        f"The scores {tuple(found.scores.shape)} that the validation step gets from {found.name} "
        "depend on the other images of the batch, or on its labels or size, as those of a "
        "contrastive loss do; pass `forward`, a function `(module, images) -> scores`."
    )


def _companions(found: ScoredCall) -> AuditError | None:
    """Return what is wrong if scores compare images with what belongs to others of their batch."""
    square = _is_square(found.scores) and _is_of_pairs(found.labels, len(found.images))
    if not (square and found.compares):
        return None
    return AuditError(
        f"The validation step compares the images that {found.name} is shown with what else "
        f"belongs to their batch{_ADVICE_ON_TEXTS}; pass `forward`, a function `(module, images) "
        "-> scores`."
    )


def _squashing(forward: Forward, images: Tensor, others: tuple[Tensor, ...]) -> str:
    one = tuple(t[:1] for t in others)
    scores, origins = called_with_origins(lambda: forward(images[:1], one))
    return origins.unsquashed(scores)[1]


def _is_same(scores: Tensor, expected: Tensor, found: ScoredCall) -> bool:
    if scores.shape != expected.shape:
        return False
    rounded = found.call.reduced or expected.dtype in (torch.float16, torch.bfloat16)
    largest = float(expected.detach().float().nan_to_num(0.0, 0.0, 0.0).abs().max())
    near = (_ROUNDED if rounded else _EXACT) * largest
    distance = _distance(scores, expected)
    return distance <= near


def _distance(scores: Tensor, expected: Tensor) -> float:
    if scores.shape != expected.shape:
        return float("inf")
    first, second = scores.detach().float(), expected.detach().float()
    other = ~((first == second) | (first.isnan() & second.isnan()))
    return (
        float((first - second).abs()[other].nan_to_num(float("inf")).max()) if other.any() else 0.0
    )


def _copied(tensor: Tensor) -> Tensor:
    """Return a copy that can be differentiated, also of a tensor of inference mode."""
    return plain(tensor).detach().clone()
