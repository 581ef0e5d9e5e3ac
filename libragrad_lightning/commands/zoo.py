"""``libragrad zoo``: how complete explanations of timm's models are, on this machine."""

from __future__ import annotations

import csv
import fnmatch
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from textwrap import shorten
from typing import Any

import timm
import torch
from tqdm import tqdm

from libragrad_lightning.attribution import Explanation, SumsOf, explain
from libragrad_lightning.backward import LibraGradError
from libragrad_lightning.commands.arguments import CommandArguments
from libragrad_lightning.commands.models import default_device
from libragrad_lightning.diagnosis.random_constants import draw_constants
from libragrad_lightning.models import is_out_of_memory

_SEED = 0
_SUMS: tuple[SumsOf, ...] = ("logit",)


@dataclass(frozen=True)
class ZooRow:
    """What was found of one model.

    Attributes:
        model: Its name.
        parameters: Their number in millions.
        levels: At how many places its tokens can be explained; None if it was not explained.
        tokens: Height and width of the map.
        plain: The largest error of the FullGrad sum of ordinary gradients, relative to the logit.
        libra: The same under LibraGrad.
        seconds: How long it took to make and to explain the model, both times.
        remark: Why it was not explained.
    """

    model: str
    parameters: float
    levels: int | None = None
    tokens: str = ""
    plain: float | None = None
    libra: float | None = None
    seconds: float = 0.0
    remark: str = ""

    def line(self) -> str:
        """Return the row for a terminal."""
        if self.remark:
            return f"{self.model:<40} {self.parameters:7.1f}  {self.remark}"
        return (
            f"{self.model:<40} {self.parameters:7.1f} {self.levels:6} {self.tokens:>7} "
            f"{self.plain:9.1e} {self.libra:9.1e} {self.seconds:7.1f}"
        )


HEADER = (
    f"{'model':<40} {'million':>7} {'levels':>6} {'tokens':>7} "
    f"{'plain':>9} {'libra':>9} {'seconds':>7}"
)


def run(arguments: Sequence[str]) -> None:
    """Run the command with the arguments behind its name."""
    command = CommandArguments("zoo", __doc__)
    command.add_texts("models", "Names of timm, or patterns: 'vit_*'.")
    command.call(print_zoo, arguments)


def print_zoo(
    models: Sequence[str], max_parameters: float = 100.0, output: str | None = None
) -> None:
    """Explain models of timm with random weights, and print how complete that is.

    All constants are drawn at random, so that every bias counts; in float64, where rounding leaves
    errors of 1e-16 to 1e-13. A model that adds up says 1e-10 or less under LibraGrad.

    Args:
        models: Names of timm, or patterns: ``vit_*``.
        max_parameters: The largest model that is explained, in millions of parameters.
        output: A file for the table, as comma-separated values.

    Raises:
        ValueError: If timm has no such model.
    """
    names = _names(models)
    print(HEADER)
    rows = []
    for row in _rows(names, max_parameters):
        rows.append(row)
        tqdm.write(row.line())
    if output is not None:
        with Path(output).open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([field.name for field in fields(ZooRow)])
            writer.writerows(map(astuple, rows))


def _names(patterns: Sequence[str]) -> list[str]:
    known = timm.list_models()
    found: dict[str, None] = {}
    for pattern in patterns:
        matching = fnmatch.filter(known, pattern.removeprefix("timm/"))
        if not matching:
            raise ValueError(f"timm has no model {pattern!r}; change models.")
        found.update(dict.fromkeys(matching))
    return list(found)


def _rows(names: Sequence[str], max_parameters: float) -> Iterator[ZooRow]:
    for name in tqdm(names, "Explaining", leave=False, delay=3.0):
        with torch.device("meta"):
            empty = timm.create_model(name)
        millions = sum(parameter.numel() for parameter in empty.parameters()) / 1e6
        if millions > max_parameters:
            yield ZooRow(name, millions, remark=f"more than max_parameters={max_parameters:g}")
            continue
        try:
            yield _explained(name, millions)
        except Exception as error:  # The other models are to be seen, too.
            yield ZooRow(name, millions, remark=_reason(error))


def _reason(error: Exception) -> str:
    if is_out_of_memory(error):
        return "out of memory"
    kind = "refused" if isinstance(error, LibraGradError) else type(error).__name__
    return f"{kind}: {shorten(str(error), 160)}"


def _explained(name: str, millions: float) -> ZooRow:
    begin = time.perf_counter()
    torch.manual_seed(_SEED)
    model: Any = timm.create_model(name).eval().to(default_device(), torch.float64)
    size = tuple(model.pretrained_cfg["input_size"])
    images = torch.randn((2, *size), dtype=torch.float64).to(default_device())
    draw_constants(model, images)
    plain, libra = (
        explain(model, images, rules=rules, sums=_SUMS, progress=False)
        for rules in ("plain", "libra")
    )
    height, width = libra.attribution.shape[1:]
    return ZooRow(
        name,
        millions,
        len(libra.logit_residuals),
        f"{height}x{width}",
        _largest_error(plain),
        _largest_error(libra),
        time.perf_counter() - begin,
    )


def _largest_error(explanation: Explanation) -> float:
    return float((explanation.logit_residuals / explanation.target_logit).abs().max())
