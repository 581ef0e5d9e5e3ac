"""``libragrad coverage``: which rule each operation of a model gets, and where its tokens are."""

from __future__ import annotations

from collections.abc import Sequence

import rich
import torch

from libragrad_lightning.backward import rule_set
from libragrad_lightning.commands.models import timm_model
from libragrad_lightning.diagnosis import coverage
from libragrad_lightning.parsing import SentenceParser


def run(arguments: Sequence[str]) -> None:
    """Run the command with the arguments behind its name."""
    parser = SentenceParser(prog="libragrad coverage", description=__doc__)
    parser.add_function_arguments(print_coverage, as_positional=True)
    print_coverage(**vars(parser.parse_args(list(arguments))))


def print_coverage(model: str, rules: str = "libra") -> None:
    """Print the operations of a model and the rule that each of them gets.

    Args:
        model: A model of timm by its name. Its weights do not matter.
        rules: The rule set.
    """
    chosen = rule_set(rules)
    named = timm_model(model, random_weights=True)
    report = coverage(named.model, torch.zeros(1, *named.image_size), rules=chosen)
    rich.print(report.table())
