"""Tables of what was found: means, intervals, and what LibraGrad changes in every method."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from findings_measures import Values
from findings_rows import ABLATIONS, RULE_FREE, Row
from libragrad_lightning.metrics.functional import (
    Bootstrap,
    Interval,
    bootstrap_interval,
    paired_bootstrap,
)

LOWER_IS_BETTER = frozenset({"LIF AOPC"})
MAIN = ("MIF accuracy drop", "SRG", "segmentation AP")
FURTHER = ("LIF accuracy", "MIF AOPC", "LIF AOPC")
DISCRIMINATION = ("class discrimination", "segmentation AP of both")


@dataclass(frozen=True)
class Measured:
    """What was measured of scenes.

    Attributes:
        values: By row and quantity, the values of the scenes `[N]`.
        groups: Which scenes belong together, `[N]`, or None.
        bootstrap: How intervals are drawn.
    """

    values: Values
    groups: Tensor | None = None
    bootstrap: Bootstrap = field(default_factory=lambda: Bootstrap(num_resamples=2000))

    def interval(self, row: Row, quantity: str) -> Interval:
        """Return the mean of a row with its interval."""
        return bootstrap_interval(self._of(row, quantity), self.bootstrap, groups=self.groups)

    def change(self, row: Row, baseline: Row, quantity: str) -> Interval:
        """Return what a row adds to another one, scenes paired."""
        values, others = self._of(row, quantity), self._of(baseline, quantity)
        return paired_bootstrap(values, others, self.bootstrap, groups=self.groups)

    def restricted(self, rules: Collection[str]) -> Measured:
        """Return the rows of these rule sets."""
        kept = {name: of for name, of in self.values.items() if name.partition("/")[2] in rules}
        return replace(self, values=kept)

    def methods(self) -> list[str]:
        """Return the names of the methods."""
        return list(dict.fromkeys(name.partition("/")[0] for name in self.values))

    def _of(self, row: Row, quantity: str) -> Tensor:
        return self.values[str(row)][quantity].double()


@dataclass(frozen=True)
class Comparison:
    """A quantity of one method under plain gradients and under LibraGrad.

    Attributes:
        plain: Its mean, with its interval.
        libra: The same under LibraGrad, None for a method without gradients.
        change: What LibraGrad adds, images paired.
    """

    plain: Interval
    libra: Interval | None
    change: Interval | None


def comparison(measured: Measured, method: str, quantity: str) -> Comparison:
    """Return how a method does with and without LibraGrad."""
    plain, libra = Row(method, "plain"), Row(method, "libra")
    of_plain = measured.interval(plain, quantity)
    if method in RULE_FREE:
        return Comparison(of_plain, None, None)
    change = measured.change(libra, plain, quantity)
    return Comparison(of_plain, measured.interval(libra, quantity), change)


def methods_table(measured: Measured, quantities: Sequence[str]) -> str:
    """Return a Markdown table of all methods, plain and Libra, in percent."""
    lines = [_line("method", *map(_titled, quantities)), _rule(quantities)]
    for method in measured.methods():
        cells = [_compared(comparison(measured, method, q), _sign(q)) for q in quantities]
        lines.append(_line(f"`{method}`", *cells))
    return "\n".join(lines)


def rules_table(measured: Measured, quantities: Sequence[str]) -> str:
    """Return a Markdown table of the rule sets, compared with the full LibraGrad, in percent."""
    lines = [_line("method and rules", *map(_titled, quantities)), _rule(quantities)]
    for row in _rule_rows(measured.values):
        cells = []
        for quantity in quantities:
            change = measured.change(row, Row(row.method, "libra"), quantity)
            versus = "" if row.rules == "libra" else f" [{_signed(change, _sign(quantity))}]"
            cells.append(f"{_percent(measured.interval(row, quantity))}{versus}")
        lines.append(_line(f"`{row.method}`, {row.rules}", *cells))
    return "\n".join(lines)


def completeness_table(values: Values) -> str:
    """Return a Markdown table of completeness errors of the predicted logit."""
    heads = ("mean error", "mean relative error", "largest relative error", "at any block")
    lines = [_line("method and rules", *heads), _rule(heads)]
    for row, of in values.items():
        method, rules = row.split("/")
        worst = of.get("relative error, worst level")
        lines.append(
            _line(
                f"`{method}`, {rules}",
                f"{of['error'].mean():.2g}",
                f"{of['relative error'].mean():.2g}",
                f"{of['relative error'].max():.2g}",
                "" if worst is None else f"{worst.max():.2g}",
            )
        )
    return "\n".join(lines)


def tally(measured: Measured, quantity: str) -> str:
    """Return in how many methods LibraGrad raises or lowers a quantity for sure."""
    methods = [method for method in measured.methods() if method not in RULE_FREE]
    changes = {m: comparison(measured, m, quantity).change for m in methods}
    sign = _sign(quantity)
    better = [m for m, c in changes.items() if c and min(sign * c.lower, sign * c.upper) > 0]
    worse = [m for m, c in changes.items() if c and max(sign * c.lower, sign * c.upper) < 0]
    named = f" ({', '.join(f'`{m}`' for m in worse)})" if worse else ""
    return (
        f"{quantity}: better in {len(better)} of {len(methods)} methods, worse in "
        f"{len(worse)}{named}, undecided in {len(methods) - len(better) - len(worse)}."
    )


def write_csv(file: Path, found: Mapping[tuple[str, str], Measured]) -> None:
    """Write every mean with its interval.

    Args:
        file: What is written.
        found: What was measured, by subject and question.
    """
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["model", "question", "method", "rules", "quantity", "images", "mean", "low", "high"]
        )
        for (subject, question), measured in found.items():
            for row, of in measured.values.items():
                for quantity, of_images in of.items():
                    i = measured.interval(Row(*row.split("/")), quantity)
                    bounds = [f"{bound.item():.6g}" for bound in (i.value, i.lower, i.upper)]
                    key = [subject, question, *row.split("/"), quantity, len(of_images)]
                    writer.writerow([*key, *bounds])


def _rule_rows(values: Values) -> Iterator[Row]:
    rows = [Row(*row.split("/")) for row in values]
    for method in ("fullgrad_plus", "input_x_gradient"):
        for rules in ("libra", *ABLATIONS, "attn_lrp", "ali_lrp", "decompx", "plain"):
            if Row(method, rules) in rows:
                yield Row(method, rules)


def _sign(quantity: str) -> int:
    return -1 if quantity in LOWER_IS_BETTER else 1


def _titled(quantity: str) -> str:
    return f"{quantity} {'↓' if quantity in LOWER_IS_BETTER else '↑'}"


def _compared(c: Comparison, sign: int) -> str:
    if c.libra is None or c.change is None:
        return _percent(c.plain)
    return f"{100 * c.plain.value:.1f} → {100 * c.libra.value:.1f} ({_signed(c.change, sign)})"


def _signed(change: Interval, sign: int) -> str:
    text = f"{100 * change.lower:+.1f} to {100 * change.upper:+.1f}"
    low, high = sorted((sign * change.lower.item(), sign * change.upper.item()))
    return f"**{text}**" if low > 0 else f"▼ {text}" if high < 0 else text


def _percent(interval: Interval) -> str:
    value, low, high = (100 * b for b in (interval.value, interval.lower, interval.upper))
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _rule(columns: Sequence[str]) -> str:
    return _line("---", *["---"] * len(columns))
