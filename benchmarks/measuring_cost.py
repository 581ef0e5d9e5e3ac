"""What it costs to measure where tokens and images are, beside an explanation of 32 images.

Seconds are those of the processor, with one thread.

python benchmarks/measuring_cost.py [model ...]
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from libragrad_lightning.attribution.explaining import explain_tokens
from libragrad_lightning.models import explanation_state, read_token_model, reading, recording
from timm_models import create_model

MODELS = ("vit_small_patch16_224", "swin_tiny_patch4_window7_224", "convnext_tiny", "resnet50")
IMAGES, CHUNK = 32, 8


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    seconds: dict[str, float] = defaultdict(float)
    reading.located_levels = _timed(reading.located_levels, "places", seconds)
    reading._learn = _timed(reading._learn, "axes", seconds)
    recording._measured = _timed(recording._measured, "axes", seconds)
    print("| model | reading, without places | places | axes | explaining 32 | share | again |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name in names or MODELS:
        seconds.clear()
        model, images = create_model(name).eval(), torch.randn(IMAGES, 3, 224, 224)
        read = _timed(read_token_model, "reading", seconds)(model, images)
        with explanation_state(model):
            explain_tokens(read, images[:CHUNK])  # measures axes
            first = seconds["places"] + seconds["axes"]
            start = time.process_time()
            for chunk in images.split(CHUNK):
                explain_tokens(read, chunk)
            whole = time.process_time() - start
        again = seconds["places"] + seconds["axes"] - first
        rest = seconds["reading"] - first
        print(
            f"| {name} | {rest:.2f} s | {seconds['places']:.2f} s | {seconds['axes']:.2f} s "
            f"| {whole:.1f} s | {first / whole:.1%} | {again:.1f} s |",
            flush=True,
        )


def _timed(call: Callable[..., Any], name: str, seconds: dict[str, float]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return call(*args, **kwargs)
        finally:
            seconds[name] += time.process_time() - start

    return timed


if __name__ == "__main__":
    main(sys.argv[1:])
