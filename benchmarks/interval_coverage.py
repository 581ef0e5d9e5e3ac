"""Measures how often confidence intervals hold the true value: ``docs/coverage.md``.

    python benchmarks/interval_coverage.py [SIMULATIONS]

Beside the intervals of this package stand plain percentiles of the same draws, and the BCa interval
of scipy, for means.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from libragrad_lightning.metrics.functional import (
    Bootstrap,
    Interval,
    bootstrap_interval,
    paired_bootstrap,
)
from libragrad_lightning.tables import TableRows

PAGE = Path(__file__).parents[1] / "docs" / "coverage.md"
COUNTS = (5, 10, 20, 50, 200)
BAND = (0.93, 0.97)
TOGETHER = 100
"""Simulations that share the numbers of samples that are drawn again."""
Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Source:
    """Where samples come from.

    Attributes:
        draw: Draws so many.
        mean: Their true mean.
    """

    draw: Draw
    mean: float

    def draws(self, generator: np.random.Generator, count: int) -> torch.Tensor:
        """Return so many samples of `TOGETHER` simulations."""
        return torch.from_numpy(self.draw(generator, count * TOGETHER)).view(count, TOGETHER)


SOURCES = {
    "normal": Source(lambda g, n: g.normal(size=n), 0.0),
    "Bernoulli 0.9": Source(lambda g, n: (g.random(n) < 0.9).astype(float), 0.9),
    "heavy-tailed (t, 3 degrees)": Source(lambda g, n: g.standard_t(3, size=n), 0.0),
}


@dataclass(frozen=True)
class Coverage:
    """What simulations gave.

    Attributes:
        held: Share of intervals that hold the true value.
        said: Share of intervals that say they are reliable.
        held_if_said: Share of those that do and hold it.
    """

    held: float
    said: float
    held_if_said: float


def means(source: Source, generator: np.random.Generator, count: int, seed: int) -> Interval:
    samples = source.draws(generator, count)
    return bootstrap_interval(samples, Bootstrap(seed=seed), _each)


def pairs(source: Source, generator: np.random.Generator, count: int, seed: int) -> Interval:
    """Samples have half of their variance in common, and the same mean."""
    common, values, baseline = (source.draws(generator, count) for _ in range(3))
    return paired_bootstrap(common + values, common + baseline, Bootstrap(seed=seed), _each)


def groups(source: Source, generator: np.random.Generator, count: int, seed: int) -> Interval:
    """Groups of one to five samples, which have half of their variance in common."""
    numbers = torch.from_numpy(np.repeat(np.arange(count), generator.integers(1, 6, size=count)))
    values = (source.draws(generator, count)[numbers] + source.draws(generator, len(numbers))) / 2
    return bootstrap_interval(values, Bootstrap(seed=seed), _each, numbers)


def _each(means: torch.Tensor) -> torch.Tensor:
    return means


KINDS = {"mean": means, "paired difference": pairs, "mean over groups": groups}


def coverage(kind: str, source: Source, count: int, simulations: int) -> Coverage:
    generator = np.random.default_rng(count)
    truth = 0.0 if kind == "paired difference" else source.mean
    rounds = range(-(-simulations // TOGETHER))
    found = [KINDS[kind](source, generator, count, seed) for seed in rounds]
    # Sums that are the true value but for rounding are it.
    held = torch.cat([(i.lower <= truth + 1e-9) & (i.upper >= truth - 1e-9) for i in found])
    said = torch.cat([i.is_reliable for i in found])
    shares = (held, said, held[said])
    return Coverage(*(float(share.double().mean()) for share in shares))


def others(source: Source, count: int, simulations: int) -> tuple[float, float]:
    """Return the coverage of plain percentiles, and of scipy's BCa."""
    generator, held = np.random.default_rng(count), np.zeros(2)
    for _ in range(simulations):
        samples = source.draw(generator, count)
        for number, method in enumerate(("percentile", "BCa")):
            low, high = stats.bootstrap(
                (samples,), np.mean, method=method, n_resamples=1000, rng=generator
            ).confidence_interval
            held[number] += low <= source.mean <= high
    return held[0] / simulations, held[1] / simulations


def rows(simulations: int) -> Iterator[tuple[str, ...]]:
    for kind in KINDS:
        for name, source in SOURCES.items():
            for count in COUNTS:
                found = coverage(kind, source, count, simulations)
                inside = BAND[0] <= found.held <= BAND[1]
                yield (
                    *(kind, name, str(count)),
                    f"{found.held:.3f}" if inside else f"*{found.held:.3f}*",
                    *(f"{found.said:.2f}", f"{found.held_if_said:.3f}"),
                )
                print(kind, name, count, found, flush=True)


def main(simulations: int = 3000) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    head = ("interval of a", "samples", "number", "coverage", "reliable", "coverage if reliable")
    table = TableRows(head, tuple(rows(simulations))).markdown()
    few = max(1, simulations // 10)
    beside = TableRows(
        ("samples", "number", "percentile", "BCa (scipy)"),
        tuple(
            (name, str(n), *(f"{share:.3f}" for share in others(source, n, few)))
            for name, source in SOURCES.items()
            for n in COUNTS
        ),
    ).markdown()
    PAGE.write_text(TEXT.format(n=simulations, few=few, table=table, beside=beside))


TEXT = """# How often intervals hold the true value

Nominal 95 %, {n} simulations each, 1000 draws (`python benchmarks/interval_coverage.py`). A
coverage outside of 0.93 to 0.97 is set in italics. *Reliable* is the share of intervals whose
`is_reliable` is true; the last column is the coverage of these alone. Numbers are those of samples,
or of groups.

{table}

Where single rare samples decide, as errors among ten right answers do, no interval drawn from the
samples covers what it should: what has not been seen is not drawn. Such intervals say so: those of
fewer than ten samples or groups that differ from the most common value, and those whose resampled
values are skewed. In return, some say so without need.

Beside them plain percentiles and BCa, both of scipy, for means, {few} simulations each:

{beside}
"""


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
