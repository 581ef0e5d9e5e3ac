"""What holds on a CUDA device: exactness, neutrality, memory and cost.

    python benchmarks/on_cuda.py [--device cuda] [--seconds 330] [--output docs/cuda.md]
        [--sections kernels norms neutrality models memory cost]

Needs the repository, torch, lightning, timm, torchmetrics and scikit-learn, and ends within six
minutes on a GPU of the last generations: what does not fit into `--seconds` is left out and said.
Sections of the page that are not tried again stay as they are. On a CPU everything is tried with
tiny models, so that the command itself is tested.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic products

import torch

import libragrad_lightning  # noqa: F401  (mends torchvision before lightning imports it)

# isort: split
from cuda_cost import cost_findings
from cuda_findings import HEADER, Finding, Setup, misses
from cuda_kernels import kernel_findings, norm_findings
from cuda_memory import memory_findings
from cuda_models import model_findings
from cuda_neutrality import neutrality_findings
from libragrad_lightning.tables import TableRows

SECTIONS: dict[str, tuple[str, Callable[[Setup], Iterator[Finding]]]] = {
    "kernels": (
        "Kernels of attention: |sum of contributions - logit| / sum of absolute contributions",
        kernel_findings,
    ),
    "norms": ("Normalization: the same", norm_findings),
    "neutrality": (
        "Neutrality: in how many tensors and values a run with the audit differs from one without",
        neutrality_findings,
    ),
    "models": (
        "Models: residual of Libra relative to all contributions (float32), to the logit (float64)",
        model_findings,
    ),
    "memory": ("Memory: what explanations take, and what audits do without it", memory_findings),
    "cost": ("Cost: ratios of medians of alternating rounds", cost_findings),
}
"""Titles and what finds, by name; the dearest last."""

INTRODUCTION = """# On CUDA

`python benchmarks/on_cuda.py` writes this page; `pytest -m gpu` runs the tests that need a device.

By torch's defaults convolutions compute in TF32, with 11 bits: contributions then add up to the
logit of a convolutional network to about 1e-4. `torch.backends.cudnn.allow_tf32 = False` makes them
exact. The audit leaves it as the run has it.
"""


def findings_within(
    find: Callable[[Setup], Iterator[Finding]], setup: Setup, deadline: float
) -> Iterator[Finding]:
    """Yield findings until the deadline, and say so if it has passed."""
    for finding in find(setup):
        yield finding
        if time.perf_counter() > deadline:
            yield Finding("the rest", float("nan"), None, "left out, for want of time")
            return


def section(setup: Setup, name: str, findings: list[Finding], seconds: float) -> str:
    """Return a section of the page in Markdown."""
    where = torch.cuda.get_device_name(setup.device) if setup.on_cuda else "a CPU, tiny models"
    runtime = f", CUDA {torch.version.cuda}" if setup.on_cuda else ""
    table = TableRows(HEADER, tuple(finding.row() for finding in findings))
    verdict = f"{len(misses(findings))} of {len(findings)} above their limits."
    verdict += f" {where}, torch {torch.__version__}{runtime}; {seconds:.0f} s."
    return f"## {SECTIONS[name][0]}\n\n{verdict}\n\n{table.markdown()}\n"


def page_with(written: Mapping[str, str], before: str) -> str:
    """Return the page in Markdown: sections that are written now, others as they were before."""
    parts = {text.split("\n", 1)[0]: f"## {text}" for text in before.split("\n## ")[1:]}
    found = {SECTIONS[name][0]: text for name, text in written.items()}
    titles = [title for title, _ in SECTIONS.values()]
    sections = [found.get(title) or parts.get(title, "") for title in titles]
    return "\n".join([INTRODUCTION, *(s.rstrip("\n") + "\n" for s in sections if s)])


def main(arguments: list[str] | None = None) -> int:
    """Print what is found as it is found, and write the page. Returns the number of misses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--seconds", type=float, default=330.0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
    setup = Setup(device, tiny=device.type != "cuda")
    warnings.simplefilter("ignore")  # what kernels do not take is tried on purpose
    for name in ("lightning.pytorch", "libragrad_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    start = time.perf_counter()
    before = options.output.read_text() if options.output and options.output.exists() else ""
    written: dict[str, str] = {}
    missed = 0
    for name in options.sections:
        found, begin = [], time.perf_counter()
        print(f"\n{SECTIONS[name][0]}", flush=True)
        for finding in findings_within(SECTIONS[name][1], setup, start + options.seconds):
            found.append(finding)
            at = time.perf_counter() - start
            print(f"{at:5.0f} s  " + "  ".join(filter(None, finding.row())), flush=True)
        missed += len(misses(found))
        written[name] = section(setup, name, found, time.perf_counter() - begin)
        if options.output is not None:
            options.output.write_text(page_with(written, before))
    print(f"\n{missed} above their limits; {time.perf_counter() - start:.0f} s")
    return missed


if __name__ == "__main__":
    sys.exit(bool(main()))
