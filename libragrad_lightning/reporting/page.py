"""One page that stands alone: what a run's audits found, for a browser and for a program."""

from __future__ import annotations

import base64
import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import Tensor

from libragrad_lightning.audit import AuditRecord
from libragrad_lightning.diagnosis import CoverageReport
from libragrad_lightning.heatmaps import encoded
from libragrad_lightning.reporting.curves import curves_svg
from libragrad_lightning.reporting.directions import arrow
from libragrad_lightning.reporting.findings import Shown
from libragrad_lightning.reporting.summary import number
from libragrad_lightning.tables import TableRows

_PACKAGES = ("libragrad-lightning", "torch", "lightning", "timm", "torchmetrics", "numpy")

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
       color: #1a1a1a; background: #fff; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: .6rem 0; font-size: .92rem; }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; border-bottom: 1px solid #ddd;
         vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0; break-inside: avoid; } figure img { max-width: 100%; }
.beside { display: flex; flex-wrap: wrap; gap: 1rem; }
figcaption, .quiet { color: #555; font-size: .9rem; } svg { max-width: 100%; height: auto; }
.warning { border-left: 4px solid #a33; padding-left: .8rem; }
details { margin: .5rem 0; } summary { cursor: pointer; }
@media print { body { max-width: none; margin: 0; } details > *:not(summary) { display: block; } }
"""


@dataclass
class AuditPage:
    """All that is told of the audits of a run.

    Attributes:
        name: What the audits are called.
        rules: The rule sets, by name.
        settings: How was explained and measured, by the names of the arguments.
        records: The audits, oldest first.
        panels: Pictures of probe images in the last audit `[3, H, W]`, by their tags.
        strips: Pictures of what became of them over all audits, by their tags.
        shown: What the last audit found of single images.
        coverage: Which rule each operation gets.
        notices: What was said during the run; those that begin with ``!`` are warnings.
    """

    name: str
    rules: Sequence[str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    records: Sequence[AuditRecord] = ()
    panels: Mapping[str, Tensor] = field(default_factory=dict)
    strips: Mapping[str, Tensor] = field(default_factory=dict)
    shown: Shown = field(default_factory=Shown)
    coverage: Sequence[CoverageReport] = ()
    notices: Sequence[str] = ()

    def json(self) -> str:
        """Return the same, but the pictures, as JSON; values that are not finite are null."""
        content = {
            "name": self.name,
            "rules": list(self.rules),
            "settings": {key: _plain(value) for key, value in self.settings.items()},
            "audits": [_finite(asdict(record)) for record in self.records],
            "coverage": {
                report.rules: {
                    use.operation: {
                        "role": use.role,
                        "count": use.count,
                        "stopped": use.stopped,
                    }
                    for use in report.uses
                }
                for report in self.coverage
            },
            "notices": [notice.removeprefix("!") for notice in self.notices],
            "versions": versions(),
        }
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)

    def html(self) -> str:
        """Return the page, which needs no other file."""
        title = f"Explanation audit: {self.name}"
        body = "\n".join(
            [
                f"<h1>{escape(title)}</h1>",
                f'<p class="quiet">{escape(self._in_short())}</p>',
                *self._notices(),
                *self._values(),
                *self._curves(),
                *self._pictures(),
                *self._coverage(),
                *self._settings(),
            ]
        )
        head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
        page = f'<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>'
        return f"<!doctype html>\n{page}\n"

    def _in_short(self) -> str:
        last = self.records[-1]
        count = f"{len(self.records)} audit{'s' * (len(self.records) > 1)}"
        deletion = f", deletion by {last.perturbation}" if last.perturbation else ""
        return (
            f"{count}; the last one ({last.when}): {last.samples} images in {last.seconds:.1f} s"
            f"{deletion}."
        )

    def _notices(self) -> Iterator[str]:
        for notice in self.notices:
            kind = ' class="warning"' if notice.startswith("!") else ""
            yield f"<p{kind}>{escape(notice.removeprefix('!'))}</p>"

    def _values(self) -> Iterator[str]:
        first, last = self.records[0], self.records[-1]
        shown = [last] if len(self.records) == 1 else [first, last]
        yield "<h2>What was measured</h2>"
        yield '<p class="quiet">↑ more is better, ↓ less is better.</p>'
        columns = [f"{name}, {record.when}" for name in self.rules for record in shown]
        metrics = dict.fromkeys(key.partition("/")[0] for record in shown for key in record.values)
        rows = [
            (
                f"{metric.replace('_', ' ')} {arrow(metric)}".rstrip(),
                *(
                    number(record.values.get(f"{metric}/{name}", record.values.get(metric)))
                    for name in self.rules
                    for record in shown
                ),
            )
            for metric in metrics
        ]
        yield table_html(TableRows(("metric", *columns), tuple(rows)))

    def _curves(self) -> Iterator[str]:
        if len(self.records) > 1:
            yield "<h2>How it went</h2>"
            yield f"<figure>{curves_svg(self.records, self.rules)}</figure>"

    def _pictures(self) -> Iterator[str]:
        shown = self.shown
        if shown.figure is not None:
            yield "<h2>Curves and differences in the last audit</h2>"
            yield _figure("Curves of all rule sets, and their differences", shown.figure)
        if shown.note:
            yield f"<p>Curves, differences and the tables below are {escape(shown.note)}.</p>"
        for name, table in shown.tables.items():
            yield f"<h2>{escape(name.replace('_', ' ').capitalize())} in the last audit</h2>"
            yield table_html(table)
        for title, pictures in (
            ("Probe images in the last audit", self.panels),
            ("Probe images over all audits", self.strips),
        ):
            if pictures:
                yield f'<h2>{title}</h2><div class="beside">'
                yield from (_figure(tag, picture) for tag, picture in pictures.items())
                yield "</div>"

    def _coverage(self) -> Iterator[str]:
        if self.coverage:
            yield "<h2>Which rule each operation gets</h2>"
        for report in self.coverage:
            uses = [(u.operation, u.role or "none", u.count, u.stopped) for u in report.uses]
            columns = ("operation", "role", "corrected or passed on", "stopped")
            opened = " open" if report.unknown else ""
            count = f"{escape(report.rules)}: {len(uses)} operations"
            yield f"<details{opened}><summary>{count}</summary>"
            yield table_html(TableRows(columns, tuple(uses)))
            yield "</details>"

    def _settings(self) -> Iterator[str]:
        for title, values in (("Settings", self.settings), ("Versions", versions())):
            rows = tuple((key, str(_plain(value))) for key, value in values.items())
            yield f"<h2>{title}</h2>"
            yield table_html(TableRows(("", ""), rows))


def versions() -> dict[str, str]:
    """Return the releases of what takes part."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def table_html(table: TableRows) -> str:
    """Return a table in HTML; numbers are set right, but those that name their row."""
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    lines = (f"<td>{escape(str(row[0]))}</td>" + "".join(map(_cell, row[1:])) for row in table.rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    text = str(value)
    is_number = text.lstrip("-").replace(".", "").replace("e", "").replace("-", "").isdigit()
    kind = ' class="number"' if is_number or text == "-" else ""
    return f"<td{kind}>{escape(text)}</td>"


def _figure(said: str, picture: Tensor) -> str:
    content, kind = encoded(picture)
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    caption = f"<figcaption>{escape(said)}</figcaption>"
    return f'<figure><img alt="{escape(said)}" src="{source}">{caption}</figure>'


def _plain(value: Any) -> Any:
    """Return a setting as JSON takes it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return getattr(value, "name", None) or getattr(value, "__name__", None) or str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
