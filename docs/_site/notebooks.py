"""Notebooks of the examples as pages."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

_NOTEBOOKS = Path(__file__).parents[2] / "examples"


def write_pages(app: Any) -> None:
    """Write every notebook as Markdown, with its pictures, to the folder ``notebooks``."""
    folder = Path(app.srcdir) / "notebooks"
    folder.mkdir(exist_ok=True)
    for path in sorted(_NOTEBOOKS.glob("*.ipynb")):
        page = "\n\n".join(_pieces(path, folder))
        target = folder / f"{path.stem}.md"
        if not target.exists() or target.read_text(encoding="utf-8") != page:
            target.write_text(page, encoding="utf-8")


def _pieces(path: Path, folder: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    pieces = []
    for number, cell in enumerate(cells):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            pieces.append(source)
            continue
        pieces.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            pieces.append(_output(output, folder / f"{path.stem}_{number}.png"))
    return pieces


def _output(output: dict[str, Any], picture: Path) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        picture.write_bytes(base64.b64decode(data["image/png"]))
        return f"![What the cell shows]({picture.name})"
    text = output.get("text") or data.get("text/plain", "")
    return f"```text\n{''.join(text).rstrip()}\n```"
