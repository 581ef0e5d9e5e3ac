"""Tries metrics and operators beside slow references, for as long as wanted.

    LIBRAGRAD_FUZZ_SECONDS=3600 python benchmarks/fuzz.py [NAME ...]

Prints how many inputs of every trial agreed, and the seeds of those that did not, with which
`fuzz_trials.TRIALS[name](seed)` repeats them.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Collection
from itertools import count

import torch

from fuzz_trials import TRIALS


def fuzz(seconds: float, names: Collection[str] = tuple(TRIALS)) -> tuple[Counter[str], list[str]]:
    """Run trials in turn.

    Returns:
        How many inputs of each were tried, and what did not agree.
    """
    tried: Counter[str] = Counter()
    failed = []
    stop = time.monotonic() + seconds
    for seed in count():
        for name in names:
            if time.monotonic() >= stop:
                return tried, failed
            try:
                TRIALS[name](seed)
            except Exception as error:
                failed.append(f"{name}, seed {seed}: {type(error).__name__}: {error}")
            tried[name] += 1
    return tried, failed


def main() -> int:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "A confidence interval of fewer")
    seconds = float(os.environ.get("LIBRAGRAD_FUZZ_SECONDS", "60"))
    tried, failed = fuzz(seconds, sys.argv[1:] or tuple(TRIALS))
    for name, times in tried.items():
        print(f"{name}: {times}")
    print(*failed, sep="\n")
    print(f"{tried.total()} inputs, {len(failed)} did not agree")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
