"""Measures how early `ShortcutAlarm` tells a shortcut: ``docs/shortcut_alarm.md``.

    python benchmarks/shortcut_alarm.py

Twenty trainings of the model of `configs/shortcut.yaml`, ten of them with a shortcut of one of four
kinds. What has been trained is kept under logs/shortcut_alarm: after an interruption the same
command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import libragrad_lightning  # noqa: F401  (repairs torchvision before anything imports it)
from alarm_figure import figure
from alarm_page import DEFAULT, PLANNED, page
from alarm_results import signs, study
from alarm_trainings import Length, Outcome, Training, data, train_all

# isort: split
import torch

from libragrad_lightning.demo.shortcuts import Shortcut

STRENGTHS: dict[Shortcut, float] = {
    "mark": 1.0,
    "color": 0.3,
    "background": 0.03,
    "texture": 0.2,
}
COUNTS: dict[Shortcut, int] = {"mark": 3, "color": 2, "background": 3, "texture": 2}


def plan() -> list[Training]:
    """Return the twenty trainings, each with a seed of its own; kinds and clean ones take turns."""
    rounds = range(max(COUNTS.values()))
    kinds = [kind for number in rounds for kind, count in COUNTS.items() if number < count]
    planted = [Training(kind, STRENGTHS[kind], seed) for seed, kind in enumerate(kinds)]
    clean = [Training("mark", 0.0, len(kinds) + seed) for seed in range(len(kinds))]
    return [training for pair in zip(planted, clean, strict=True) for training in pair]


def share_of_garment(length: Length) -> float:
    """Return the mean share of garment pixels in the images of an audit."""
    composites = data(plan()[1], length).composites("val")
    return float(composites.masks[: length.probes].mean())


def report(outcomes: Sequence[Outcome], out: Path) -> None:
    """Write the page and its figure."""
    found = study(outcomes)
    min_quality = share_of_garment(outcomes[0].length)
    both = signs(min_quality)
    out.mkdir(parents=True, exist_ok=True)
    figure(found, both, DEFAULT, out / "shortcut_alarm.png")
    (out / "shortcut_alarm.md").write_text(page(found, both, min_quality), encoding="utf-8")


def main(arguments: Sequence[str] | None = None, trainings: Sequence[Training] = ()) -> None:
    """Train, and write the page.

    Args:
        arguments: Those of the command line.
        trainings: What is trained, the twenty if empty.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    length = Length()
    parser.add_argument("--work", type=Path, default=Path("logs/shortcut_alarm"))
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--trainings", type=int, default=PLANNED, help="the first of all that many")
    parser.add_argument("--steps", type=int, default=length.steps, help="of a training")
    parser.add_argument("--every", type=int, default=length.every, help="steps between audits")
    parser.add_argument("--images", type=int, default=length.images, help="training images")
    parser.add_argument("--val", type=int, default=length.val, help="validation images")
    parser.add_argument("--probes", type=int, default=length.probes, help="images of an audit")
    given = parser.parse_args(arguments)
    length = Length(given.steps, given.every, given.images, given.val, given.probes)
    chosen = (trainings or plan())[: given.trainings]
    done = train_all(chosen, length, given.work / "trainings.jsonl")
    report(done, given.out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
