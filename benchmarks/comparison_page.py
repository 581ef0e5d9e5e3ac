"""The page that `comparison.py` writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from comparison_peers import METHODS, OURS, Method
from libragrad_lightning.tables import Cell, TableRows

_TRIALS = {
    "bfloat16": "weights in bfloat16",
    "swin": "the same lines on Swin",
    "convnext": "on ConvNeXt",
    "numbers": "a network on rows of numbers",
}


@dataclass(frozen=True)
class Row:
    """What is said of a method.

    Attributes:
        method: The method.
        result: What its worker found.
        completeness_error: |sum - logit| over |logit|, mean over images; without, if nothing is
            claimed to add up, or if it failed.
        interval: Of the gain, at 95 %.
        gain: Symmetric relevance gain.
        precision: Segmentation AP.
    """

    method: Method
    result: Mapping[str, Any]
    completeness_error: float | None = None
    interval: tuple[float, float] | None = None
    gain: float | None = None
    precision: float | None = None

    @property
    def cost(self) -> Mapping[str, float]:
        """Seconds for an image, and MiB; nothing if it failed."""
        found = self.result["explained"]
        return found if isinstance(found, dict) else {}

    @property
    def title(self) -> str:
        """Library and method."""
        return f"{self.method.library}: {self.method.name}"


_BETTER: Mapping[str, tuple[Callable[[Row], float | None], int]] = {
    "symmetric relevance gain": (lambda row: row.gain, 1),
    "segmentation AP": (lambda row: row.precision, 1),
    "completeness error": (lambda row: row.completeness_error, -1),
    "CPU seconds for an image": (lambda row: row.cost.get("seconds"), -1),
    "MiB of memory": (lambda row: row.cost.get("memory"), -1),
    "lines": (lambda row: row.result["lines"] if row.cost else None, -1),
}
"""Columns in which methods are better or worse, and whether more (1) or less (-1) is better."""


def _number(value: float) -> str:
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"


def others_first(rows: Sequence[Row]) -> list[str]:
    """Say in which columns methods of other libraries are better than our default."""
    default = next(row for row in rows if row.method is METHODS["ours"])
    said = []
    for column, (read, sign) in _BETTER.items():
        own = read(default)
        values = [(read(row), row.title) for row in rows if row.method.library != OURS]
        ahead = [(v, title) for v, title in values if v is not None and v == v]
        ahead = [(v, title) for v, title in ahead if own is not None and sign * (v - own) > 0]
        if ahead and own is not None:
            listed = ", ".join(
                f"{title} ({_number(v)})" for v, title in sorted(ahead, reverse=sign > 0)
            )
            said.append(f"- **{column}**, where our default has {_number(own)}: {listed}.")
    return said


def _features(rows: Sequence[Row], looked: Mapping[str, Any]) -> list[str]:
    known = {name: found for name, found in looked.items() if isinstance(found, dict)}
    more = {n: f["metrics"] for n, f in known.items() if f["metrics"] > known[OURS]["metrics"]}
    numbers = sorted({r.method.library for r in rows if r.result["numbers"] == "yes"} - {OURS})
    said = [
        f"- **{n} has more measures of maps**: {m}, to our {known[OURS]['metrics']}."
        for n, m in more.items()
    ]
    if numbers:
        said.append(
            f"- **Any input**: {', '.join(numbers)} explained a network on rows of numbers; "
            "ours takes images."
        )
    said.append(
        "- **No gradients needed**: captum's Feature Ablation asks the model alone; "
        "ours has no such method."
    )
    return said


def quality(rows: Sequence[Row], flipping: Mapping[str, float]) -> str:
    """Return the table of figures."""
    columns = (
        "method", "symmetric relevance gain ↑ (95 %)", "PixelFlipping of Quantus ↓",
        "segmentation AP ↑", "completeness error ↓", "CPU s for an image", "MiB", "lines",
    )  # fmt: skip
    table: list[tuple[Cell, ...]] = []
    names = {id(method): name for name, method in METHODS.items()}
    for row in sorted(rows, key=lambda row: -(row.gain if row.gain is not None else -9)):
        if not row.cost:
            table.append((row.title, str(row.result["explained"]), *[None] * 6))
            continue
        assert row.gain is not None
        assert row.interval is not None
        assert row.precision is not None
        lower, upper = row.interval
        error = row.completeness_error
        table.append((
            row.title, f"{row.gain:.2f} ({lower:.2f} to {upper:.2f})",
            f"{flipping[names[id(row.method)]]:.3f}", f"{row.precision:.2f}",
            "claims none" if error is None else _number(error),
            f"{row.cost['seconds']:.2f}", f"{row.cost['memory']:.0f}", row.result["lines"],
        ))  # fmt: skip
    return TableRows(columns, tuple(table)).markdown()


def trials(rows: Sequence[Row]) -> str:
    """Return the table of what was tried."""
    columns = ("method", "left behind", *_TRIALS.values())
    table = tuple(
        (row.title, row.result["traces"], *(row.result[trial] for trial in _TRIALS)) for row in rows
    )
    return TableRows(columns, table).markdown()


def libraries(looked: Mapping[str, Any], authors: str) -> str:
    """Return the table of libraries."""
    columns = (
        "library",
        "version",
        "measures of maps",
        "callback for Lightning",
        "in a fit of a stranger's module",
    )
    table: list[tuple[Cell, ...]] = []
    for name, found in looked.items():
        if isinstance(found, str):
            table.append((name, f"not run: {found}", None, None, None))
        else:
            callbacks = ", ".join(f"`{c}`" for c in found["callbacks"]) or "none"
            table.append((name, found["version"], found["metrics"], callbacks, found["trained"]))
    table.append(("the authors' code", f"not run: {authors}", None, None, None))
    return TableRows(columns, tuple(table)).markdown()


def page(
    rows: Sequence[Row],
    flipping: Mapping[str, float],
    looked: Mapping[str, Any],
    authors: str,
    count: int,
) -> str:
    """Return the page.

    Args:
        rows: A row for each method.
        flipping: What Quantus says of each map.
        looked: What was found of each library, or why it was not run.
        authors: What became of the authors' code.
        count: How many images were explained.
    """
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "lightning"))
    return f"""# Compared with other libraries

`python benchmarks/comparison.py CHECKPOINT` writes this page, and goes on after an interruption.
One core, {versions}, and the model of `configs/photographs.yaml` (a ViT-S/14, twenty classes) on
{count} held-out scenes, of which the label is explained. What is not in the tables was not tried.
The intervals are wide, so neighbors in the first table are no ranking.

## Where others are better

{chr(10).join(others_first(rows) + _features(rows, looked))}

## Maps, cost and lines

{quality(rows, flipping)}

Every map is summed over patches of 14 pixels, so that all have the same resolution. The gain is
that of deleting the least instead of the most influential patches first, in accuracy, mean over
10 to 90 % of the patches; PixelFlipping is the mean of the class's probability while pixels
become black, as Quantus measures it, from the same maps (its area under the curve asks for
`numpy.trapz`, which NumPy has no longer); segmentation AP is
against the objects' masks, of maps that are upsampled bicubically. The completeness error is
|what the method adds up to - logit| over |logit|: attributions with the biases that our method
counts apart, or with the logit of the baseline for Integrated Gradients. Seconds are those of
the processor in batches of 16, after the first images; MiB are what a process grows by. Lines
are the statements in `benchmarks/comparison_peers.py`, imports included. Where a library offers
several methods, one or two were run, as its documentation shows them for a vision transformer;
another choice may do better.

## What was tried

{trials(rows)}

*Left behind* is what differs in the model, or in torch, after a call. The lines of CAMs name a
layer, and other models need other lines. LXT knows torchvision's vision transformer, so the
model was rebuilt there with the same logits, which its seconds and memory hold, too; it was
given an older transformers, as it imports names that are gone. Rows of numbers were given to
captum's Input x Gradient, whatever the row.

## Libraries

{libraries(looked, authors)}

The authors' code is three repositories, a fork of timm among them, and was imported as it
comes. Maps of ours equal arrays that it computed to 1e-12 (`tests/golden`). `foxai` and
`luxonis-train` were installed, or not, with the torch of `constraints.txt`. Measures of maps
are what a library exports for them, helpers included.
"""
