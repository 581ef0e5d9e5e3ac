"""``libragrad coverage``: which rule each operation of a model gets, and where its tokens are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rich
import torch

from libragrad_lightning.backward import rule_set
from libragrad_lightning.commands.models import Build, timm_model
from libragrad_lightning.diagnosis import coverage
from libragrad_lightning.parsing import SentenceParser


def run(arguments: Sequence[str]) -> None:
    """Run the command with the arguments behind its name."""
    parser = SentenceParser(prog="libragrad coverage", description=__doc__)
    parser.add_function_arguments(print_coverage, as_positional=True)
    print_coverage(**vars(parser.parse_args(list(arguments))))


def print_coverage(
    model: str,
    rules: str = "libra",
    image_size: int | None = None,
    model_kwargs: dict[str, Any] | None = None,
) -> None:
    """Print the operations of a model and the rule that each of them gets.

    Args:
        model: A model of timm by its name. Its weights do not matter.
        rules: The rule set.
        image_size: The side of its images, if it is another than timm's.
        model_kwargs: Further arguments of `timm.create_model`.
    """
    chosen = rule_set(rules)
    named = timm_model(model, random_weights=True, build=Build(image_size, model_kwargs or {}))
    report = coverage(named.model, torch.zeros(1, *named.image_size), rules=chosen)
    rich.print(report.table())
