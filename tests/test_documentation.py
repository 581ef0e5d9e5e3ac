"""The documentation names what there is."""

import re
from pathlib import Path

import pytest

from libragrad_lightning.attribution import METHODS, REWARDS
from libragrad_lightning.backward import RULE_SETS
from libragrad_lightning.perturbation import PERTURBATIONS

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    "table", [METHODS, REWARDS, RULE_SETS], ids=["methods", "rewards", "rules"]
)
def test_every_name_is_explained(table):
    named = set(re.findall(r"`(\w+)`", (DOCS / "methods.md").read_text()))
    assert set(table) <= named


def test_pixel_perturbations_are_named():
    text = (DOCS / "methods.md").read_text()
    assert all(name in text for name in PERTURBATIONS if name.startswith("pixels"))
