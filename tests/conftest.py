"""Shared fixtures: one thread per process, a seed for every test, and the panels of an audit."""

from typing import NamedTuple

import pytest
import torch

import libragrad_lightning  # noqa: F401  (repairs torchvision before anything imports it)


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
