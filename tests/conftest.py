"""Shared fixtures: one thread per process, a seed for every test, and the panels of an audit."""

import os
from datetime import date
from typing import NamedTuple

import pytest
import torch

import libragrad_lightning  # noqa: F401  (repairs torchvision before anything imports it)

# Set before workers start, which take it over, so that they agree at midnight, too.
DAY = os.environ.setdefault("LIBRAGRAD_TESTS_OF", str(date.today().toordinal()))
_WHOLE, _PARTS = 1000, 3


def pytest_collection_modifyitems(config, items):
    """Run a third of the cases that rotate, another one every day, if all tests are run."""
    if DAY == "all" or len(items) < _WHOLE:
        return
    rotating = [item for item in items if item.get_closest_marker("rotating")]
    left = {item for number, item in enumerate(rotating) if (number + int(DAY)) % _PARTS}
    config.hook.pytest_deselected(items=sorted(left, key=lambda item: item.nodeid))
    items[:] = [item for item in items if item not in left]


class Panel(NamedTuple):
    """What an audit gave for a panel."""

    image: torch.Tensor
    caption: str
    notes: dict[str, str]


@pytest.fixture(autouse=True)
def _one_thread_and_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def panels(monkeypatch):
    """The panels that audits have drawn so far."""
    from libragrad_lightning.reporting import panels as drawing  # most tests need no Lightning

    found = []
    draw = drawing.share_panel

    def seen(image, targets, mask, caption, **kwargs):
        found.append(Panel(image, caption, targets[0].notes))
        return draw(image, targets, mask, caption, **kwargs)

    monkeypatch.setattr(drawing, "share_panel", seen)
    return found
