"""The rooms depend on each other in one direction, and only the outer ones know Lightning."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "libragrad_lightning"
OURS = "libragrad_lightning"

KNOWS = {
    "backward": set(),
    "models": {"backward"},
    "attribution": {"backward", "models"},
    "perturbation": {"models"},
    "diagnosis": {"backward", "models"},
    "metrics": set(),
    "heatmaps": set(),
}
"""Which other rooms each room may import."""

FOREIGN = {
    "backward": {"torch"},
    "models": {"torch", "timm", "numpy"},
    "attribution": {"torch", "numpy", "tqdm"},
    "perturbation": {"torch", "torchvision"},
    "diagnosis": {"torch", "rich"},
    "metrics": {"torch", "torchmetrics", "numpy", "matplotlib", "pycocotools"},
    "heatmaps": {"torch", "numpy", "PIL", "matplotlib"},
}
"""Which libraries each room may import."""


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module


@pytest.mark.parametrize("room", KNOWS)
def test_rooms_import_what_they_may_know(room):
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert files
    for path in files:
        for name in imported(path):
            top, _, rest = name.partition(".")
            if top == OURS:
                assert rest.partition(".")[0] in KNOWS[room] | {room}, f"{path} imports {name}"
            else:
                assert top in FOREIGN[room] | sys.stdlib_module_names, f"{path} imports {name}"


def test_no_file_is_longer_than_a_room_should_be():
    root = PACKAGE.parent
    for path in [*PACKAGE.rglob("*.py"), *(root / "callbacks").glob("*.py")]:
        assert len(path.read_text().splitlines()) < 400, path
