"""Every block of Python on a page runs as it stands, one after the other in a fresh interpreter.

A notebook is a page, too: its cells are the blocks.

Commands for the shell run as well, but for those that install, download or train for minutes.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("*/README.md"),
    *ROOT.glob("examples/*.ipynb"),
]

CHECKS = {
    "README.md": """
assert explanation.attribution.shape == (1, 14, 14)
assert Image.open("map.png").width > 400
assert words[0][0] == "a"
assert gradient.shape == images.shape
""",
    "docs/architecture.md": """
assert complete.residuals.abs().max() < 1e-5 * complete.target_logit.abs().max()
assert incomplete.residuals.abs().max() > 1e-3 * incomplete.target_logit.abs().max()
assert lengths.attribution.shape == (2, 4, 4)
assert audit is not None
assert batch["mask"].shape == (4, 64, 64)
assert torch.equal(batch["image"][:, 0] == 1, batch["mask"])
""",
    "docs/how_to.md": """
outlines = torch.zeros(2, 8, 8)
outlines[:, 2:5] = 7
read = unpack({"meta": {"species": torch.tensor([1, 0]), "outline": outlines}})
assert read.images is None
assert read.masks.sum() == 2 * 3 * 8
assert explanation.attribution.shape == (1, 14, 14)
assert Image.open("methods.png").width > Image.open("map.png").width
assert gradient.shape == images.shape
assert len(callbacks) == 2
assert report.stages[0].stage == "head"
""",
    "docs/start.md": """
assert report.stat().st_size > 100_000
assert "data:image" in report.read_text()
values = trainer.callback_metrics
assert values["audit/completeness_error/libra"] < 1e-5
assert values["audit/completeness_error/plain"] > 0.1
""",
    "examples/explain_one_image.ipynb": """
assert explanation.residuals.abs().max() < 1e-5 < 0.01 < plain.residuals.abs().max()
assert other.target.tolist() == [sneaker]
assert len(several.explanations) == 6
assert trainer.callback_metrics["val_acc"] > 0.3
""",
    "docs/text_prompts.md": """
assert explanation.heatmap((224, 224)).shape == (1, 224, 224)
assert Image.open("prompts.png").width > 1000
assert [word for word, _ in found.words(0, 0)] == ["a", "red", "bus"]
torch.testing.assert_close(found.relevance.sum(2) + found.elsewhere, found.scores)
module = ZeroShot(model, tokenizer, ["bus", "tree"])
assert module.zero_shot(images).shape == (1, 2)
""",
}
"""What holds after the last block of a page, in its names and torch's."""


READ_FIRST = ("README.md", "start.md")


def blocks(page, language):
    if page.suffix == ".ipynb":
        cells = json.loads(page.read_text())["cells"] if language == "python" else []
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def name_of(page):
    return str(page.relative_to(ROOT))


def with_blocks(language):
    found = [page for page in PAGES if blocks(page, language)]
    others = {page: [pytest.mark.rotating] for page in found if page.name not in READ_FIRST}
    cases = [pytest.param(page, id=name_of(page), marks=others.get(page, [])) for page in found]
    return pytest.mark.parametrize("page", cases)


@pytest.fixture
def folder(tmp_path):
    """Where a reader stands: photographs, a folder of classes with masks, and a checkpoint."""
    draws = np.random.default_rng(0)
    for name in (
        "cat.jpg",
        "street.jpg",
        "photographs/dog.jpg",
        "data/val/a/1.png",
        "data/val/b/2.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(path)
    for name in ("a/1.png", "b/2.png"):
        path = tmp_path / "data" / "val_masks" / name
        path.parent.mkdir(parents=True)
        mask = Image.new("L", (96, 64))
        mask.paste(255, (8, 8, 40, 40))
        mask.save(path)
    weights = timm.create_model("vit_small_patch16_224", num_classes=2).state_dict()
    checkpoint = tmp_path / "logs" / "version_0" / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    torch.save({"state_dict": {f"net.{key}": value for key, value in weights.items()}}, checkpoint)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    return tmp_path


def ran(command, folder):
    paths = os.pathsep.join([str(Path(__file__).parent / "offline"), str(ROOT / "examples")])
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    setting = {"PYTHONPATH": paths, "PATH": programs, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    setting["WITHOUT_HUB"] = "1"
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | setting,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@with_blocks("python")
def test_python_runs_as_it_stands(page, folder):
    checks = CHECKS.get(name_of(page), "")
    program = "\n".join([*blocks(page, "python"), "import torch", "from PIL import Image", checks])
    done = ran([sys.executable, "-c", program], folder)
    assert done.returncode == 0, done.stderr[-3000:]


def commands():
    lines = [
        line
        for page in PAGES
        for block in blocks(page, "bash")
        for line in block.replace("\\\n", "").splitlines()
    ]
    return [
        line for line in lines if re.match(r"libragrad (explain|audit|coverage|zoo|doctor)\b", line)
    ]


@pytest.mark.rotating
@pytest.mark.parametrize("command", commands(), ids=lambda command: "_".join(command.split()[1:3]))
def test_commands_run_as_they_stand(command, folder):
    done = ran(["bash", "-c", command], folder)
    assert done.returncode == 0, done.stderr[-3000:]


def test_pages_have_blocks():
    assert len(commands()) >= 4
    assert {name for name in CHECKS if not blocks(ROOT / name, "python")} == set()
