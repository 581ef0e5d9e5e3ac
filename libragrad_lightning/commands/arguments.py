"""The arguments of commands: those of a function, and lists and switches that it has not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from libragrad_lightning.parsing import SentenceParser


class CommandArguments:
    """The arguments of one command; a file, `--config`, may hold some of them.

    Args:
        name: The name of the command.
        description: What it does.
    """

    def __init__(self, name: str, description: str | None) -> None:
        self._parser = SentenceParser(prog=f"libragrad {name}", description=description)
        self._by_hand: set[str | int] = set()
        self._parser.add_argument(
            "--config", action="config", help="A file with some of the arguments."
        )

    def add_texts(self, name: str, said: str, **how: Any) -> None:
        """Add one or more texts behind each other, as an option if the name has hyphens.

        Args:
            name: The name.
            said: What it is.
            how: Further arguments of `ArgumentParser.add_argument`.
        """
        self._parser.add_argument(name, nargs="+", type=str, help=said, **how)
        self._by_hand.add(name.removeprefix("--"))

    def add_rules(self, said: str) -> None:
        """Add the rule sets."""
        self.add_texts("--rules", said, default=["plain", "libra"])

    def add_random_weights(self) -> None:
        """Add a switch for random weights, which takes no value."""
        self._parser.add_argument(
            "--random_weights", action="store_true", help="Leave the weights as they are drawn."
        )
        self._by_hand.add("random_weights")

    def call(
        self, function: Callable[..., None], given: Sequence[str], *, as_positional: bool = False
    ) -> dict[str, Any]:
        """Call a function with what was given, and return that.

        Args:
            function: What has the other arguments.
            given: What stands behind the name of the command.
            as_positional: Whether arguments without a default stand without their names.
        """
        self._parser.add_function_arguments(
            function, as_positional=as_positional, skip=self._by_hand
        )
        found = vars(self._parser.parse_args(list(given)))
        del found["config"]
        function(**found)
        return found
