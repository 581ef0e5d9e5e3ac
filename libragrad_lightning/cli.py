"""The command ``libragrad``: a LightningCLI with fit, validate and test, and commands beside it.

A mistake of the user's ends it with one sentence and exit status 2; any other error keeps its
traceback.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from jsonargparse import DefaultHelpFormatter
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

import libragrad_lightning
import libragrad_lightning.callbacks  # its names can be given without their path
from libragrad_lightning.commands import COMMANDS
from libragrad_lightning.parsing import (
    IS_UNION,
    SentenceParser,
    is_users_mistake,
    one_sentence,
)

DESCRIPTION = """\
Train, validate or test a model with PyTorch Lightning, and audit what it looks at.

The arguments of the audit:
  libragrad fit --trainer.callbacks.help=libragrad_lightning.callbacks.LibraGradAudit

Without training:
""" + "\n".join(f"  libragrad {name:<9} {command.summary}" for name, command in COMMANDS.items())


class _HelpFormatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Leaves the line breaks of the description as they are."""


class LibraGradParser(SentenceParser, LightningArgumentParser):
    """Lightning's parser, but a mistake is said in one sentence."""


class LibraGradCLI(LightningCLI):
    """LightningCLI without `predict`, which an audit has no part in."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the Trainer methods that are offered as subcommands."""
        return {
            name: skipped
            for name, skipped in LightningCLI.subcommands().items()
            if name in {"fit", "validate", "test"}
        }

    def before_instantiate_classes(self) -> None:
        """Keep the errors of callbacks."""
        self.parser.add_instantiator(_create_callback, Callback)


class _CallbackError(BaseException):
    """Raised from a callback's error: after an `Exception`, jsonargparse tries another type."""


def main(args: ArgsType = None) -> None:
    """Run the command line.

    Args:
        args: Arguments, or None for those of the process.

    Raises:
        SystemExit: With status 2 after a mistake of the user's, with 0 after help or version.
    """
    given = sys.argv[1:] if args is None else args
    if isinstance(given, list) and given and given[0] in COMMANDS:
        with one_sentence(MisconfigurationException):
            COMMANDS[given[0]].run(given[1:])
        return
    with one_sentence():
        _check_known(given)
    try:
        LibraGradCLI(
            save_config_kwargs={"overwrite": True},
            parser_class=LibraGradParser,
            parser_kwargs={
                "prog": "libragrad",
                "description": DESCRIPTION,
                "version": libragrad_lightning.__version__,
                "formatter_class": _HelpFormatter,
            },
            args=args,
        )
    except (Exception, _CallbackError) as raised:
        error = _original(raised)
        if not isinstance(error, MisconfigurationException) and not is_users_mistake(error):
            raise error from error.__cause__
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _check_known(given: Any) -> None:
    """Name all commands after one that is none of them."""
    known = [*LibraGradCLI.subcommands(), *COMMANDS]
    first = given[0] if isinstance(given, list) and given else "-"
    if isinstance(first, str) and not first.startswith("-") and first not in known:
        raise ValueError(f"libragrad has no command {first!r}; it has {', '.join(known)}.")


def _create_callback(class_type: type[Callback], *args: Any, **kwargs: Any) -> Callback:
    try:
        return class_type(*args, **kwargs)
    except Exception as error:
        raise _CallbackError from error


def _original(error: BaseException) -> BaseException:
    """Return the error that a callback, or a class that jsonargparse creates, has raised."""
    while error.__cause__ and (
        isinstance(error, _CallbackError) or str(error).startswith(IS_UNION)
    ):
        error = error.__cause__
    return error
