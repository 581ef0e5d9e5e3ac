"""The paper's first figure: what methods show of the region that a text names."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from libragrad_lightning.attribution.explaining import explain_tokens
from libragrad_lightning.attribution.methods import attribution_method
from libragrad_lightning.attribution.rewards import reward_function
from libragrad_lightning.backward import LibraGradError, rule_set
from libragrad_lightning.heatmaps import explanation_panel, stacked, to_display_range
from libragrad_lightning.models import TokenModel, explanation_state, read_token_model
from libragrad_lightning.prompts.text_prompts import TextPrompts


@dataclass(frozen=True)
class Column:
    """What is shown in a column of a figure.

    Attributes:
        method: The name of an attribution method.
        rules: The name of a rule set.
    """

    method: str
    rules: str = "plain"


PAPER_COLUMNS: Mapping[str, Column] = MappingProxyType(
    {
        "Input x Gradient": Column("input_x_gradient"),
        "GenAtt": Column("genatt"),
        "AttCAT": Column("attcat"),
        "FullGrad+": Column("fullgrad_plus"),
        "Libra FullGrad+": Column("fullgrad_plus", "libra"),
    }
)
"""The columns of the first figure of Mehri et al. 2025, by title."""


def prompt_figure(
    prompts: TextPrompts,
    images: Tensor,
    *,
    columns: Mapping[str, Column] = PAPER_COLUMNS,
    mean: Sequence[float] | Tensor | None = None,
    std: Sequence[float] | Tensor | None = None,
    column_size: int = 224,
) -> Tensor:
    """Draw for every image and every prompt the image, maps of methods, and the prompt below.

    What is explained is the score of the prompt itself, as in the paper. Methods that cannot be
    applied to the model are left out, with a warning that says why.

    Args:
        prompts: The prompts.
        images: `[B, C, H, W]`, as the model expects them.
        columns: What is shown, by title.
        mean: Mean that was subtracted from the images, to show them in their colors.
        std: Standard deviation that they were divided by.
        column_size: Aim for the longer side of each picture, in pixels.

    Returns:
        The figure `[3, H', W']`, uint8, on the CPU: B x P lines, those of the first image first.

    Raises:
        LibraGradError: If no method can be applied.
    """
    read = read_token_model(prompts, images)
    maps: dict[str, list[Tensor]] = {}
    errors = []
    with explanation_state(prompts):
        placement = read.placement(images)
        for title, column in columns.items():
            try:
                maps[title] = [
                    _maps(read, images, column, prompt) for prompt in range(len(prompts.prompts))
                ]
            except LibraGradError as error:
                errors.append(error)
                warnings.warn(f"{title} is left out: {error}", stacklevel=2)
    if not maps:
        raise errors[0]
    shown = to_display_range(images, mean, std).cpu()
    lines = [
        explanation_panel(
            shown[image],
            {title: found[number][image] for title, found in maps.items()},
            caption=prompt,
            column_size=column_size,
            placement=placement,
        )
        for image in range(len(images))
        for number, prompt in enumerate(prompts.prompts)
    ]
    return stacked(lines)


def _maps(read: TokenModel, images: Tensor, column: Column, prompt: int) -> Tensor:
    """Return the maps `[B, h, w]` of a prompt."""
    (explanation,) = explain_tokens(
        read,
        images,
        rules=(rule_set(column.rules),),
        method=attribution_method(column.method),
        target=prompt,
        reward=reward_function("logit", "multilabel"),
        task="multilabel",
    )
    return explanation.attribution.cpu()
