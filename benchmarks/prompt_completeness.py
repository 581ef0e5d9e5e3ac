"""Measures how completely scores of text prompts are decomposed, on models of the usual sizes.

Weights are random, biases too, so that nothing is downloaded. Writes a table of residuals over the
patches of the image and over the words of the text: relative to the score, and relative to the sum
of the absolute contributions that add up to it, whose ratio to rounding says how much cancels:

    python benchmarks/prompt_completeness.py docs/text_prompts.csv

Names of models after the file choose some of them.
"""

from __future__ import annotations

import csv
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from libragrad_lightning import explain
from libragrad_lightning.attribution import METHODS, Captured
from libragrad_lightning.prompts import explain_words, text_prompts

# isort: split
import open_clip
import torch
import transformers
from torch import Tensor, nn

from libragrad_lightning.diagnosis.random_constants import draw_constants

PROMPTS = ("a photo of a cat", "two dogs on the street")
LETTERS = " abcdefghijklmnopqrstuvwxyz"


def letters(length: int) -> Callable[[Sequence[str]], Tensor]:
    """Return a tokenizer that needs no vocabulary: every letter is a token, the last one ends."""

    def tokenizer(texts: Sequence[str]) -> Tensor:
        rows = [[LETTERS.index(c) + 1 for c in text][: length - 1] for text in texts]
        return torch.tensor([[*row, 999] + [0] * (length - 1 - len(row)) for row in rows])

    return tokenizer


def of_open_clip(name: str, context: int = 77) -> tuple[nn.Module, int, int]:
    """Return a model of open_clip, the size of its images, and its context."""
    model = open_clip.create_model(name)
    size = model.visual.image_size
    return model, size if isinstance(size, int) else size[0], context


def clip_of_transformers() -> tuple[nn.Module, int, int]:
    """Return CLIP ViT-B/32 of transformers."""
    config = transformers.CLIPConfig(text_config={"eos_token_id": 999, "bos_token_id": 998})
    return transformers.CLIPModel(config), 224, 77


def siglip_of_transformers() -> tuple[nn.Module, int, int]:
    """Return SigLIP B/16 of transformers."""
    return transformers.SiglipModel(transformers.SiglipConfig()), 224, 64


MODELS: dict[str, Callable[[], tuple[nn.Module, int, int]]] = {
    "open_clip ViT-B-32": lambda: of_open_clip("ViT-B-32"),
    "open_clip EVA02-B-16": lambda: of_open_clip("EVA02-B-16"),
    "open_clip ViT-B-16-SigLIP": lambda: of_open_clip("ViT-B-16-SigLIP", 64),
    "open_clip coca_ViT-B-32": lambda: of_open_clip("coca_ViT-B-32", 76),
    "open_clip convnext_base": lambda: of_open_clip("convnext_base"),
    "open_clip RN50": lambda: of_open_clip("RN50"),
    "transformers CLIP ViT-B/32": clip_of_transformers,
    "transformers SigLIP B/16": siglip_of_transformers,
}


class Sizes:
    """FullGrad that remembers how large the contributions of each level are.

    Those of a level are its features times their gradients, element by element, and the biases at
    or behind it, by token.
    """

    def __init__(self) -> None:
        self._found: list[Tensor] = []

    def __call__(self, captured: Captured) -> Tensor:
        """Return FullGrad at the first level."""
        products = [
            (h * g).abs().sum((1, 2))
            for h, g in zip(captured.features, captured.gradients, strict=True)
        ]
        biases = captured.token_biases.abs().sum(2) + captured.image_biases.abs()
        self._found.append(torch.stack(products) + biases)
        return METHODS["fullgrad"](captured)

    def of_each(self) -> Tensor:
        """Return the sums of absolute contributions `[L, B]` of all images, in their order."""
        return torch.cat(self._found, 1)


class _Images(nn.Module):
    """The images' side of a model, for the statistics of its batch norms."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> object:
        """Embed images."""
        encode = getattr(self.model, "encode_image", None) or self.model.get_image_features
        return encode(images)


def rows(names: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield a row for every model, rule set and type."""
    for name in names or MODELS:
        torch.manual_seed(0)
        model, size, context = MODELS[name]()
        kept = {n: p.clone() for n, p in model.named_parameters() if n.startswith("logit")}
        images = torch.randn(2, 3, size, size)
        draw_constants(_Images(model.eval()), images)
        with torch.no_grad():
            for label, value in kept.items():
                model.get_parameter(label).copy_(value)
        for dtype in (torch.float32, torch.float64):
            prompts = text_prompts(model.to(dtype), letters(context), PROMPTS)
            for rules in ("libra", "plain"):
                of_images, of_words = Sizes(), Sizes()
                given = images.to(dtype)
                image = explain(
                    prompts, given, rules=rules, reward="logit", method=of_images, batch_size=1
                )
                text = explain_words(prompts, given, rules=rules, method=of_words, batch_size=1)
                words = of_words.of_each().unflatten(1, text.scores.T.shape).mT
                yield {
                    "model": name,
                    "dtype": str(dtype).removeprefix("torch."),
                    "rules": rules,
                    "image": f"{_relative(image.residuals, image.target_logit):.0e}",
                    "image_of_absolute": f"{_relative(image.residuals, of_images.of_each()):.0e}",
                    "text": f"{_relative(text.residuals, text.scores):.0e}",
                    "text_of_absolute": f"{_relative(text.residuals, words):.0e}",
                    "smallest_score": f"{text.scores.abs().min():.2g}",
                    "largest_score": f"{text.scores.abs().max():.2g}",
                }
        del model, prompts
        gc.collect()


def _relative(residuals: Tensor, to: Tensor) -> float:
    return float((residuals / to).abs().max())


def main(path: Path, names: Sequence[str]) -> None:
    """Write the table."""
    with path.open("w", newline="") as file:
        writer: csv.DictWriter[str] | None = None
        for row in rows(names):
            if writer is None:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            print(row)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2:])
