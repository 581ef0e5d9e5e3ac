"""`explain`: the one call outside of training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from libragrad_lightning.attribution.drawing import ExplainedImages
from libragrad_lightning.attribution.explaining import explain_tokens
from libragrad_lightning.attribution.explanation import OF_REWARD, Explanation, SumsOf
from libragrad_lightning.attribution.methods import Method, attribution_method
from libragrad_lightning.attribution.rewards import Reward, reward_function
from libragrad_lightning.attribution.targets import Target
from libragrad_lightning.attribution.tasks import Task, said_task
from libragrad_lightning.backward import RuleSet, UnknownPolicy, rule_set
from libragrad_lightning.inputs import Picture, Transform, model_inputs
from libragrad_lightning.models import TokenModel, explanation_state, read_token_model

_SECONDS_BEFORE_PROGRESS = 3.0
_AXES = {
    **dict.fromkeys(("attribution", "prefix", "token_biases", "image_biases"), 0),
    **dict.fromkeys(("logits", "target", "linear_reward"), 0),
    **dict.fromkeys(("logit_sums", "reward_sums"), 1),
}
"""The parts of an explanation that have a row, or column, for every image, and its axis."""


def explain(
    model: nn.Module,
    images: Tensor | Picture | Sequence[Picture],
    *,
    target: Target | Tensor | Sequence[int] = "predicted",
    method: str | Method = "fullgrad_plus",
    rules: str | RuleSet = "libra",
    reward: str | Reward = "log_odds",
    task: Task | None = None,
    sums: Collection[SumsOf] = OF_REWARD,
    batch_size: int | None = None,
    memory_gib: float = 2.0,
    progress: bool = True,
    unknown: UnknownPolicy = "error",
    backbone: str = "",
    blocks: Sequence[str] | None = None,
    forward: Callable[[Tensor], Any] | None = None,
    transform: Transform | None = None,
    reading: TokenModel | None = None,
) -> Explanation:
    """Explain a model's outputs for images; the model is left as it was, to the last bit.

    Args:
        model: Any module from images to logits; its tokens or feature maps are found in it.
        images: `[B, C, H, W]`, floating point, prepared as the model expects, on its device; or
            pictures of Pillow's or paths of image files, which are prepared by `transform`.
        target: The class to explain: ``"predicted"``, a class index, or one class for each image.
        method: The attribution method, by name (`METHODS`) or a function of `Captured`.
        rules: The rule set, by name (`RULE_SETS`) or as an object.
        reward: What is differentiated: ``log_odds``, ``probability``, ``logit`` or a function.
        task: What the scores mean: ``"multiclass"``, ``"binary"`` (one logit under a sigmoid, with
            the classes 0 and 1), ``"multilabel"`` or ``"regression"``; by default what a
            `ScoringModule` says, else one of the first two, by the number of logits.
        sums: What attributions are added up for: ``("reward",)``, what is differentiated, gives
            `residuals`, and ``("logit",)`` gives `logit_residuals`, for which a second backward
            pass is taken unless the reward is the logit. ``("reward", "logit")`` gives both, and
            with ``()`` what biases contribute is not gathered unless the method reads it.
        batch_size: Images explained at once; by default as many as `memory_gib` allows.
        memory_gib: How much memory a recorded forward pass may take, in GiB.
        progress: Whether to show progress if it takes longer than a few seconds.
        unknown: What to do about operations without a rule: raise, warn, or ignore.
        backbone: Path of the submodule in which blocks are looked for.
        blocks: Paths of the blocks, in order, found if omitted.
        forward: Images to logits; the model itself by default.
        transform: From a picture to `[C, H, W]`; by default the evaluation transform of the one
            model of timm in `model`.
        reading: What `models.read_token_model` has returned for this model, to explain it again
            without reading it anew; `backbone`, `blocks` and `forward` are those of the reading.
            Nothing tells whether it still fits: read the model again if its modules, or what they
            do, have changed.

    Returns:
        The maps `[B, h, w]` with their prefix and bias parts, and the completeness at every block.
        It shows itself in a notebook, and `save` writes it to a file.

    Raises:
        UnreadableModelError: If the model's features cannot be found, or the images do not fit.
        UnknownOperationError: If an operation has no rule and `unknown` is ``"error"``.
        ValueError: If a name is unknown, the batch size is not positive, the target is no class or
            of the wrong length, or pictures cannot be read or prepared.

    Example:
        >>> from libragrad_lightning import explain
        >>> import timm
        >>> model = timm.create_model("test_vit")
        >>> explanation = explain(model, torch.randn(2, 3, 160, 160))
        >>> explanation.attribution.shape
        torch.Size([2, 10, 10])
        >>> bool(explanation.residuals.abs().max() < 1e-4)
        True
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"`batch_size` must be a positive number of images but is {batch_size}.")
    chosen, rules = attribution_method(method), rule_set(rules)
    task = task or said_task(forward or (reading.forward if reading else model))
    rewarded = reward_function(reward, task or "multiclass")
    given = model_inputs(model, images, transform)
    images = given.images.as_subclass(Tensor)  # Leaves of other classes are hidden from the graph.
    wanted, classes = _per_image(target, len(images))
    with explanation_state(model):
        read = reading or read_token_model(
            model, images, backbone=backbone, blocks=blocks, forward=forward
        )
        size = batch_size or images_at_once(read, images, memory_gib)
        parts = [
            explain_tokens(
                read,
                images[start : start + size],
                None if classes is None else classes[start : start + size],
                rules=(rules,),
                method=chosen,
                target=wanted,
                reward=rewarded,
                task=task,
                sums=sums,
                unknown=unknown,
            )[0]
            for start in _shown(range(0, len(images), size), progress)
        ]
    shown = ExplainedImages(images.detach(), given.mean, given.std)
    return replace(joined(parts), shown=shown)


def images_at_once(model: TokenModel, images: Tensor, memory_gib: float) -> int:
    """Return how many images can be recorded in the memory, at least one."""
    if len(images) == 1:
        return 1
    return max(1, int(memory_gib * 2**30 / max(1, model.bytes_recorded(images))))


def joined(parts: Sequence[Explanation]) -> Explanation:
    """Return the explanation of all images of several explanations under one rule set."""
    joint: dict[str, Any] = {
        name: _along(axis, [getattr(part, name) for part in parts]) for name, axis in _AXES.items()
    }
    return replace(parts[0], **joint)


def _along(axis: int, parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there, axis) if len(there) == len(parts) else None


def _per_image(target: Target | Tensor | Sequence[int], count: int) -> tuple[Target, Tensor | None]:
    """Return the target as `explain_tokens` takes it, with one class for each image if given so."""
    if isinstance(target, str | int) or callable(target):
        return target, None
    classes = torch.as_tensor(target)
    if classes.shape != (count,):
        raise ValueError(
            f"`target` must name one class for each of {count} images but has shape "
            f"{tuple(classes.shape)}."
        )
    return "label", classes


def _shown(starts: range, progress: bool) -> Iterable[int]:
    return tqdm(
        starts, "Explaining", leave=False, delay=_SECONDS_BEFORE_PROGRESS, disable=not progress
    )
