"""Every row of the page on settings names tests that exist, and every setting has its row."""

import ast
import re
from pathlib import Path

from test_audit_neutrality import SETTINGS

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "settings.md"


def rows():
    lines = (line for line in PAGE.read_text().splitlines() if line.startswith("|"))
    cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [row for row in cells if row[-1] != "test" and set(row[-1]) != {"-"}]


def test_every_row_names_a_test_that_exists():
    assert len(rows()) > 40
    for row in rows():
        found = re.fullmatch(r"`(test_\w+\.py)::(test_\w+)(\[.+\])?`", row[-1])
        assert found, row
        module = ast.parse((HERE / found[1]).read_text())
        assert found[2] in {n.name for n in module.body if isinstance(n, ast.FunctionDef)}, row


def test_every_setting_has_its_row():
    named = {cell for row in rows() for cell in re.findall(r"without_the_audit\[(.+)\]", row[-1])}
    assert named == set(SETTINGS)
