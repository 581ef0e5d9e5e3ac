"""What the command ``libragrad`` does without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Command:
    """A command that is imported when it is called.

    Attributes:
        module: The module whose function `run` it is.
        summary: What it does.
    """

    module: str
    summary: str

    def run(self, arguments: Sequence[str]) -> None:
        """Run it with the arguments behind its name."""
        import_module(self.module).run(arguments)


COMMANDS = {
    "explain": Command(
        "libragrad_lightning.commands.explain", "explain pictures with a model of timm"
    ),
    "audit": Command(
        "libragrad_lightning.commands.audit", "measure what a model of timm looks at, as one page"
    ),
    "coverage": Command(
        "libragrad_lightning.commands.coverage", "list the rule that each operation gets"
    ),
    "prompts": Command(
        "libragrad_lightning.commands.prompts", "show what in pictures answers to texts"
    ),
    "doctor": Command(
        "libragrad_lightning.commands.doctor", "check whether this installation computes right"
    ),
    "zoo": Command(
        "libragrad_lightning.commands.zoo", "measure how complete explanations of timm's models are"
    ),
}

__all__ = ["COMMANDS", "Command"]
