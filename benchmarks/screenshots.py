"""Pictures of what a user sees of the demo: TensorBoard's tabs, the page, and the terminal.

    python benchmarks/screenshots.py PICTURES [--epochs 30] [--batches 20] [--logs LOGS]

Trains the demo in pseudo-terminals of 80 and 160 columns, serves its logs, and opens every tab in a
headless Chromium. Needs `chromium` on the path; the terminal is drawn if `pyte` is installed, and
kept as text in any case.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parents[1]
TABS = (
    *("timeseries", "scalars", "custom_scalars", "images"),
    *("distributions", "histograms", "text", "hparams"),
)
WIDTH, HEIGHT = 1600, 1200
TALL = {"custom_scalars": 4200, "images": 3600, "audit": 6000}
"""Heights of pages of which more is to be seen than a screen holds."""
ROWS = 48
CHROMIUM = (
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--hide-scrollbars", "--virtual-time-budget=25000"),
)


def in_terminal(command: list[str], columns: int) -> bytes:
    """Run a command in a pseudo-terminal, and return all that it wrote there."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.execvpe(command[0], command, {**os.environ, "TERM": "xterm-256color"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    written = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            break
        if not piece:
            break
        written += piece
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{written.decode(errors='replace')[-3000:]}")
    return written


def draw_terminal(written: bytes, columns: int, path: Path) -> None:
    """Draw what stands in a terminal in the end, its last lines, if `pyte` is installed."""
    if find_spec("pyte") is None:
        print("pyte is not installed: the terminal is kept as text alone", file=sys.stderr)
        return
    import pyte

    screen = pyte.Screen(columns, ROWS)
    pyte.ByteStream(screen).feed(written)
    font = ImageFont.truetype(_monospace(), 15)
    width, height = round(font.getlength("x")), 19
    picture = Image.new("RGB", (columns * width + 20, ROWS * height + 20), (24, 24, 24))
    draw = ImageDraw.Draw(picture)
    for row, line in enumerate(screen.display):
        for column, character in enumerate(line):
            if character != " ":
                place = (10 + column * width, 10 + row * height)
                draw.text(place, character, fill=(225, 225, 225), font=font)
    picture.save(path)


def _monospace() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf")


@contextmanager
def tensorboard(logs: Path) -> Iterator[str]:
    """Serve logs, and yield the address."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = ["-m", "tensorboard.main", "--logdir", str(logs), "--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, *command, "--samples_per_plugin", "images=1000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://localhost:{port}/"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}data/runs", timeout=5).read()
                break
            except OSError:
                time.sleep(1)
        time.sleep(5)  # until it has read the files
        yield address
    finally:
        server.terminate()
        server.wait()


def screenshot(address: str, path: Path, height: int = HEIGHT) -> None:
    """Save a picture of a page."""
    with tempfile.TemporaryDirectory() as profile:
        command = [
            *CHROMIUM,
            f"--user-data-dir={profile}",
            f"--window-size={WIDTH},{height}",
            f"--screenshot={path}",
            address,
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    print(path)


def train(logs: Path, columns: int, epochs: int, batches: int) -> bytes:
    """Train the demo for a short while in a terminal of so many columns."""
    command = [sys.executable, "-m", "libragrad_lightning", "fit", "--config", "configs/demo.yaml"]
    options = {
        "logger.init_args.save_dir": logs,
        "logger.init_args.version": f"columns_{columns}",
        "max_epochs": epochs,
        "limit_train_batches": batches,
    }
    command += [f"--trainer.{name}={value}" for name, value in options.items()]
    return in_terminal(command, columns)


def main() -> None:
    """Train, and take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--logs", type=Path, help="logs that are there, in place of training")
    arguments = parser.parse_args()
    pictures: Path = arguments.pictures
    pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        logs: Path = arguments.logs or Path(folder)
        if arguments.logs is None:
            for columns, epochs in ((80, arguments.epochs), (160, 3)):
                written = train(logs, columns, epochs, arguments.batches)
                (pictures / f"terminal_{columns}.txt").write_bytes(written)
                draw_terminal(written, columns, pictures / f"terminal_{columns}.png")
            shutil.rmtree(next(logs.rglob("columns_160")))
        with tensorboard(logs) as address:
            for tab in TABS:
                screenshot(f"{address}#{tab}", pictures / f"{tab}.png", TALL.get(tab, HEIGHT))
        page = max(logs.rglob("audit.html"))
        screenshot(page.resolve().as_uri(), pictures / "audit.png", TALL["audit"])


if __name__ == "__main__":
    main()
