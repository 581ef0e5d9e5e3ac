"""The releases of torch whose graphs the engine was tested to read.

Names of graph nodes, and what they save, are no public interface of torch and change between
releases. See docs/versions.md for what was run.
"""

from __future__ import annotations

import re
import warnings

import torch

OLDEST = (2, 6)
"""The oldest release whose graphs were read in tests."""
NEWEST = (2, 15)
"""The newest release whose graphs were read in tests."""


def check_torch_version(version: str = torch.__version__) -> None:
    """Refuse releases of torch that are too old, and warn about releases that are too new.

    Args:
        version: The version of torch, such as ``"2.13.0+cpu"``.

    Raises:
        ImportError: If the release is older than what was tested: its graphs may be misread.
    """
    release = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    tested = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    if release < OLDEST:
        raise ImportError(
            f"The backward graphs of torch {tested} can be read, but torch {version} is installed; "
            f"install torch>={OLDEST[0]}.{OLDEST[1]}."
        )
    if release > NEWEST:
        warnings.warn(
            f"The backward graphs of torch {tested} were tested, but torch {version} is installed; "
            "run `libragrad doctor`, which checks every operation, or install "
            f"torch=={NEWEST[0]}.{NEWEST[1]}.*.",
            stacklevel=2,
        )
