"""Measures FullGrad completeness under LibraGrad for the architectures of timm.

    python benchmarks/zoo.py run --representatives      # the smallest of every timm module
    python benchmarks/zoo.py run --models 'vit_*'
    python benchmarks/zoo.py table                      # docs/zoo.csv -> docs/zoo.md

An architecture whose timm module, class and set of operations (with the flows of their operands)
are those of a smaller one that was measured is not run but marked as inferred from that one.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tqdm import tqdm

from timm_models import list_models
from zoo_architectures import reductions
from zoo_measurement import Measurement, Trace, measure, trace
from zoo_rows import Row, append, read
from zoo_table import write_table
from zoo_workers import JobError, JobMemoryError, JobTimeoutError, Worker


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.command == "table":
        write_table(read(arguments.out, Row), arguments.out.with_suffix(".md"))
        return
    workers: SimpleQueue[Worker] = SimpleQueue()
    for _ in range(arguments.jobs):
        workers.put(Worker(arguments.memory))
    names = list_models(arguments.models)
    traces = list(_traced(names, arguments.traces, workers, arguments.jobs))
    if arguments.representatives:
        traces = representatives(traces)
    _run(traces, arguments.out, workers, arguments.jobs, arguments.timeout)
    while not workers.empty():
        workers.get().stop()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure architectures that are not in the file yet")
    run.add_argument("--models", default="*", help="pattern of timm names")
    run.add_argument("--representatives", action="store_true", help="one for each timm module")
    run.add_argument("--jobs", type=int, default=1, help="number of processes")
    run.add_argument("--timeout", type=float, default=180.0, help="seconds for one architecture")
    run.add_argument("--memory", type=float, default=7.0, help="GiB for one process")
    run.add_argument("--traces", type=Path, default=Path("build/zoo_traces.csv"))
    for command in (run, commands.add_parser("table", help="summarize the file")):
        command.add_argument("--out", type=Path, default=Path("docs/zoo.csv"))
    return parser


def representatives(traces: Iterable[Trace]) -> list[Trace]:
    """Return the architecture with the fewest parameters of every timm module."""
    smallest: dict[str, Trace] = {}
    for t in sorted(traces, key=lambda t: t.parameters):
        smallest.setdefault(t.module, t)
    return list(smallest.values())


def _traced(
    names: Sequence[str], path: Path, workers: SimpleQueue[Worker], jobs: int
) -> Iterator[Trace]:
    known = {t.name: t for t in read(path, Trace)}

    def job(name: str) -> Trace:
        worker = workers.get()
        try:
            return worker.run(trace, name, timeout=300)
        finally:
            workers.put(worker)

    yield from (known[name] for name in names if name in known)
    missing = [name for name in names if name not in known]
    with ThreadPoolExecutor(jobs) as pool:
        for result in tqdm(pool.map(job, missing), "Tracing", len(missing), disable=not missing):
            append(path, result)
            yield result


def _run(
    traces: list[Trace], out: Path, workers: SimpleQueue[Worker], jobs: int, timeout: float
) -> None:
    rows = {row.name: row for row in read(out, Row)}
    measured = {r.signature: r for r in rows.values() if r.status == "measured" and not r.reduced}
    groups: dict[str, list[Trace]] = {}
    for t in sorted(traces, key=lambda t: t.parameters):
        if t.name not in rows:
            groups.setdefault(t.signature, []).append(t)

    def job(group: list[Trace]) -> list[Row]:
        worker = workers.get()
        try:
            return _rows_of(group, measured.get(group[0].signature), worker, timeout)
        finally:
            workers.put(worker)

    with (
        ThreadPoolExecutor(jobs) as pool,
        tqdm(desc="Measuring", total=sum(map(len, groups.values()))) as bar,
    ):
        for new in pool.map(job, groups.values()):
            for row in new:
                append(out, row)
            bar.update(len(new))


def _rows_of(group: list[Trace], source: Row | None, worker: Worker, timeout: float) -> list[Row]:
    """Measure the smallest of architectures with one signature and infer the others from it.

    A reduced form stands for itself alone: it may lack operations that the full one has.
    """
    rows: list[Row] = []
    for t in group:
        if source is not None:
            rows.append(Row.inferred(t, source))
        elif rows and rows[-1].status != "measured":
            rows.append(Row.failed(t, f"not tried, because the smaller {group[0].name} failed"))
        else:
            rows.append(_measured(t, worker, timeout))
            full = rows[-1].status == "measured" and not rows[-1].reduced
            source = rows[-1] if full else None
    return rows


def _measured(t: Trace, worker: Worker, timeout: float) -> Row:
    try:
        return Row.measured(t, t.shape, worker.run(measure, t.name, t.shape, timeout=timeout))
    except (JobMemoryError, JobTimeoutError) as error:
        return _measured_reduced(t, worker, timeout) or Row.failed(t, str(error))
    except JobError as error:
        return Row.failed(t, str(error))


def _measured_reduced(t: Trace, worker: Worker, timeout: float) -> Row | None:
    for shape in reductions(t.name):
        try:
            result: Measurement = worker.run(measure, t.name, shape, timeout=timeout)
        except JobError:
            continue
        return Row.measured(t, shape, result)
    return None


if __name__ == "__main__":
    main()
