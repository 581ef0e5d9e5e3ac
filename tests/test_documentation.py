"""The documentation names what there is."""

import re
from pathlib import Path

import pytest

from libragrad_lightning.attribution import METHODS, REWARDS
from libragrad_lightning.backward import RULE_SETS
from libragrad_lightning.perturbation import PERTURBATIONS

DOCS = Path(__file__).parents[1] / "docs"


def names_in(pattern, flags=0):
    """The names in ticks in what a pattern finds in the page on methods."""
    (found,) = re.findall(pattern, (DOCS / "methods.md").read_text(), flags)
    return re.findall(r"`(\w+)`", found)


def test_every_method_has_its_line_in_the_table():
    rows = re.findall(r"^\|((?: `\w+`,?)+) \|", (DOCS / "methods.md").read_text(), re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(METHODS)


@pytest.mark.parametrize(
    ("table", "pattern"),
    [(RULE_SETS, r"any rule set \(([^)]*)\)"), (REWARDS, r"any reward \(([^)]*)\)")],
    ids=["rules", "rewards"],
)
def test_every_rule_set_and_reward_is_listed(table, pattern):
    assert sorted(names_in(pattern)) == sorted(table)


def test_pixel_perturbations_are_named():
    text = (DOCS / "methods.md").read_text()
    assert all(name in text for name in PERTURBATIONS if name.startswith("pixels"))
