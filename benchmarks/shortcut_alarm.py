"""Measures how early `ShortcutAlarm` tells a shortcut: ``docs/shortcut_alarm.md``.

    python benchmarks/shortcut_alarm.py

Twenty trainings of the model of `configs/shortcut.yaml`, ten of them with a shortcut of one of four
kinds. What has been trained is kept under logs/shortcut_alarm: after an interruption the same
command goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import libragrad_lightning  # noqa: F401  (repairs torchvision before anything imports it)
from alarm_trainings import Length, Training, train_all

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


def main() -> None:
    """Train, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("logs/shortcut_alarm"))
    parser.add_argument("--out", type=Path, default=Path("docs"))
    given = parser.parse_args()
    train_all(plan(), Length(), given.work / "trainings.jsonl")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
