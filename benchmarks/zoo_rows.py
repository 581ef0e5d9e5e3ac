"""The rows of the zoo's tables, and the files that they are appended to."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from zoo_architectures import Shape
from zoo_measurement import Measurement, Trace


@dataclass(frozen=True)
class Row:
    """What is known of one architecture.

    Attributes:
        name: The name of the architecture.
        module: The timm module that defines it.
        family: The class of the model.
        parameters: Number of parameters of the full model.
        status: ``"measured"``, ``"inferred"``, or why there is no measurement.
        inferred_from: The architecture whose measurement stands for this one.
        size: Height and width of the images.
        reduced: Whether blocks or channels were taken away to fit.
        signature: See `Trace`.
        libra: See `Measurement`; this and what follows is None unless measured.
    """

    name: str
    module: str
    family: str
    parameters: int
    status: str
    inferred_from: str
    size: int
    reduced: bool
    signature: str
    libra: float | None = None
    plain: float | None = None
    libra_float32: float | None = None
    identical: bool | None = None
    unknown: str | None = None
    indirect: str | None = None
    contrast: float | None = None
    nodes: int | None = None
    seconds: float | None = None
    megabytes: int | None = None

    @classmethod
    def measured(cls, t: Trace, shape: Shape, measurement: Measurement) -> Row:
        """Return the row of an architecture that was run."""
        return cls(
            **_identity(t),
            status="measured",
            inferred_from="",
            size=shape.size,
            reduced=shape.reduced,
            **asdict(measurement),
        )

    @classmethod
    def inferred(cls, t: Trace, source: Row) -> Row:
        """Return the row of an architecture for which another one stands."""
        return cls(
            **_identity(t),
            status="inferred",
            inferred_from=source.name,
            size=t.shape.size,
            reduced=False,
        )

    @classmethod
    def failed(cls, t: Trace, reason: str) -> Row:
        """Return the row of an architecture that could not be measured."""
        status = " ".join(reason.split())[:200]
        return cls(
            **_identity(t), status=status, inferred_from="", size=t.shape.size, reduced=False
        )


def _identity(t: Trace) -> dict[str, Any]:
    return {
        name: getattr(t, name) for name in ("name", "module", "family", "parameters", "signature")
    }


RowType = TypeVar("RowType")


def read(path: Path, row_type: type[RowType]) -> Iterator[RowType]:
    """Yield the rows of a file; none if it does not exist."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        for values in csv.DictReader(file):
            yield row_type(**{f.name: _parse(f, values[f.name]) for f in fields(row_type)})


def append(path: Path, row: Any) -> None:
    """Add a row to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f.name for f in fields(row)]
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(names)
        writer.writerow(_write(getattr(row, name)) for name in names)


def _write(value: object) -> str:
    if isinstance(value, Shape):
        return json.dumps(asdict(value))
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)


def _parse(field: Any, text: str) -> Any:
    if field.type == "Shape":
        return Shape(**json.loads(text))
    if not text and field.default is not MISSING and "str" not in field.type:
        return None
    kind = field.type.partition(" ")[0]
    parsers: dict[str, Callable[[str], Any]] = {
        "bool": lambda text: text == "True",
        "int": int,
        "float": float,
        "str": str,
    }
    return parsers[kind](text)
