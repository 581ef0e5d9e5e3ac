"""Checks for very many models that their tokens lie where the reading of them says.

python benchmarks/places.py run                      # every model that is not in the file yet
python benchmarks/places.py run timm swin+96x        # those whose key holds one of these words
python benchmarks/places.py run --again layouts      # also those that are in the file
python benchmarks/places.py table                    # docs/places.csv -> docs/places.md
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tqdm import tqdm

import libragrad_lightning  # noqa: F401  (repairs torchvision before timm imports it)
from place_measurement import PlaceRow, measure
from place_models import place_models
from place_table import write_table
from zoo_rows import append, read
from zoo_workers import JobError, JobMemoryError, JobTimeoutError, Worker


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.command == "run":
        _run(tuple(arguments.words), arguments)
    write_table(read(arguments.out, PlaceRow), arguments.out.with_suffix(".md"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="check models that are not in the file yet")
    run.add_argument("words", nargs="*", help="check those whose key holds one of these")
    run.add_argument("--again", action="store_true", help="check also those in the file")
    run.add_argument("--timeout", type=float, default=240.0, help="seconds for one model")
    run.add_argument("--memory", type=float, default=6.0, help="GiB for one process")
    for command in (run, commands.add_parser("table", help="summarize the file")):
        command.add_argument("--out", type=Path, default=Path("docs/places.csv"))
    return parser


def _run(words: tuple[str, ...], arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    chosen = place_models(words)
    rows = {row.name: row for row in read(out, PlaceRow)}
    if arguments.again:
        _write(out, [row for row in rows.values() if row.name not in chosen])
        rows = {name: row for name, row in rows.items() if name not in chosen}
    left = [model for key, model in chosen.items() if key not in rows]
    worker = Worker(arguments.memory)
    bar = tqdm(left, "Checking", smoothing=0.05)
    for model in bar:
        bar.set_postfix_str(model.key)
        row = _measured(worker, model.key, model.library, arguments.timeout)
        if row.verdict != "in place" and not (model.optional and row.verdict == "not built"):
            bar.write(f"{row.verdict}: {row.name}: {row.reason}")
        if not (model.optional and row.verdict == "not built"):
            append(out, row)
    worker.stop()


def _measured(worker: Worker, key: str, library: str, timeout: float) -> PlaceRow:
    try:
        row: PlaceRow = worker.run(measure, key, timeout=timeout)
    except (JobMemoryError, JobTimeoutError) as error:
        return PlaceRow(key, library, "too costly", str(error))
    except JobError as error:
        return PlaceRow(key, library, "not built", str(error))
    return row


def _write(out: Path, rows: list[PlaceRow]) -> None:
    out.unlink(missing_ok=True)
    for row in rows:
        append(out, row)


if __name__ == "__main__":
    main()
