"""The maps of several methods under several rule sets, side by side."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from tqdm import tqdm

from libragrad_lightning.attribution.drawing import (
    MOST_DRAWN,
    Drawing,
    ExplainedImages,
)
from libragrad_lightning.attribution.explaining import explain_methods
from libragrad_lightning.attribution.explanation import Explanation
from libragrad_lightning.attribution.methods import attribution_method
from libragrad_lightning.attribution.rewards import reward_function
from libragrad_lightning.attribution.targets import Target
from libragrad_lightning.attribution.tasks import Task, said_task
from libragrad_lightning.backward import LibraGradError, RuleSet, rule_set
from libragrad_lightning.inputs import Picture, Transform, model_inputs
from libragrad_lightning.models import TokenModel, explanation_state, read_token_model


@dataclass(frozen=True, eq=False)
class Comparison(Drawing):
    """Explanations of the same images; shows itself in a notebook.

    Attributes:
        explanations: By the title of their column, such as ``fullgrad_plus, libra``.
    """

    explanations: Mapping[str, Explanation]

    def __getitem__(self, index: int | slice) -> Comparison:
        return Comparison({title: e[index] for title, e in self.explanations.items()})

    @property
    def columns(self) -> Mapping[str, Explanation]:
        """What is drawn beside the images, by the titles of the columns."""
        return self.explanations

    def preview(self) -> Tensor | None:
        """Return the figure of the first images."""
        return self[:MOST_DRAWN].figure()


def compare(
    model: nn.Module,
    images: Tensor | Picture | Sequence[Picture],
    *,
    methods: Sequence[str] = ("input_x_gradient", "genatt", "attcat", "fullgrad_plus"),
    rules: Sequence[str | RuleSet] = ("plain", "libra"),
    target: Target = "predicted",
    reward: str = "log_odds",
    task: Task | None = None,
    forward: Callable[[Tensor], Any] | None = None,
    transform: Transform | None = None,
    progress: bool = True,
) -> Comparison:
    """Explain images by several methods under several rule sets, as the paper's figures do.

    Methods that cannot be applied to the model are left out, with a warning that says why.

    Args:
        model: Any module from images to logits, which is left as it was.
        images: As for `explain`.
        methods: Attribution methods, by name.
        rules: Rule sets, by name or as objects.
        target: The class to explain: ``"predicted"`` or an index.
        reward: What is differentiated, by name.
        task: What the scores mean, as for `explain`.
        forward: Images to logits; the model itself by default.
        transform: From a picture to `[C, H, W]`, as for `explain`.
        progress: Whether to show progress if it takes longer than a few seconds.

    Returns:
        The explanations; `save` writes their figure to a file.

    Raises:
        LibraGradError: If no method can be applied.
        ValueError: If a name is unknown.

    Example:
        >>> from libragrad_lightning import compare
        >>> import timm, torch
        >>> model = timm.create_model("test_vit")
        >>> found = compare(model, torch.rand(1, 3, 160, 160), methods=["genatt", "fullgrad_plus"])
        >>> list(found.explanations)
        ['genatt, plain', 'genatt, libra', 'fullgrad_plus, plain', 'fullgrad_plus, libra']
    """
    given = model_inputs(model, images, transform)
    chosen = [rule_set(rules_) for rules_ in rules]
    task = task or said_task(forward or model)
    read = read_token_model(model, given.images, forward=forward)
    explained: dict[str, Explanation] = {}
    refusals: dict[str, LibraGradError] = {}
    with explanation_state(model):
        for name in tqdm(methods, "Comparing", leave=False, delay=3.0, disable=not progress):
            try:
                found = _explanations(read, given.images, name, chosen, target, reward, task)
            except LibraGradError as error:
                refusals[name] = error
            else:
                explained |= found
    if not explained:
        raise next(iter(refusals.values()))
    for name, refusal in refusals.items():
        warnings.warn(f"{name} is left out: {refusal}", stacklevel=2)
    shown = ExplainedImages(given.images.detach(), given.mean, given.std)
    return Comparison({title: replace(e, shown=shown) for title, e in explained.items()})


def _explanations(
    read: TokenModel,
    images: Tensor,
    method: str,
    rules: Sequence[RuleSet],
    target: Target,
    reward: str,
    task: Task | None,
) -> dict[str, Explanation]:
    """Return the explanations by one method, by title."""
    found = explain_methods(
        read,
        images,
        rules=rules,
        methods={method: attribution_method(method)},
        target=target,
        reward=reward_function(reward, task or "multiclass"),
        task=task,
    )
    return {f"{method}, {by_method[method].rules.name}": by_method[method] for by_method in found}
