"""Compares methods on what a text names, with a model that learned it: which of two garments?

    libragrad fit --config configs/clip.yaml
    python benchmarks/text_prompts_trained.py \
        logs/clip/version_0/checkpoints/latest.ckpt

Held-out scenes of two garments are explained under the prompts of both, by every method that can
explain the model, under plain gradients and under LibraGrad. Writes `text_prompts_trained.csv` and
`text_prompts_trained.md`, means over scenes with 95 % bootstrap intervals, and a figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import libragrad_lightning  # noqa: F401  (repairs torchvision before anything imports it)
from findings_measures import Values, explained
from findings_report import Measured, methods_table, tally, write_csv
from findings_rows import Row, applicable, method_rows
from findings_work import joined
from libragrad_lightning.attribution import Explanation, Reward
from libragrad_lightning.attribution.rewards import reward_function
from libragrad_lightning.demo import TextMatcher, TwoGarments
from libragrad_lightning.heatmaps import explanation_panel, to_display_range
from libragrad_lightning.heatmaps.panel import to_pil
from libragrad_lightning.metrics.functional import (
    class_discrimination,
    segmentation_average_precision,
)
from libragrad_lightning.models import TokenModel, explanation_state, read_token_model
from libragrad_lightning.perturbation import deletion_logits

SHOWN = {
    "AttCAT plain": Row("attcat", "plain"),
    "AttCAT Libra": Row("attcat", "libra"),
    "FullGrad+ plain": Row("fullgrad_plus", "plain"),
    "FullGrad+ Libra": Row("fullgrad_plus", "libra"),
}
"""Columns of the figure."""

SEEN = ("segmentation AP", "class discrimination")
DELETED = ("MIF cosine drop", "LIF cosine rise", "cosine gain")
_PROMPTS = ("label", "other_label")
_MASKS = ("mask", "other_mask")


def measured_scenes(
    matcher: TextMatcher,
    batch: Mapping[str, Tensor],
    model: TokenModel,
    rows: Sequence[Row],
    steps: int,
) -> Values:
    """Measure the maps of both prompts of every scene.

    Args:
        matcher: The trained model.
        batch: `image`, `label`, `mask`, `other_label` and `other_mask` of N scenes.
        model: The model and its tokens.
        rows: Methods and rule sets.
        steps: Passes of the methods that need many.

    Returns:
        By row and quantity the values of the scenes `[N]`, means over both prompts.
    """
    reward: Reward = reward_function("logit", "multilabel")
    of_prompt = [explained(model, batch["image"], rows, steps, batch[k], reward) for k in _PROMPTS]
    masks = torch.stack([batch["mask"], batch["other_mask"]], 1)
    found: Values = {}
    for row in map(str, rows):
        maps = torch.stack([e[row].heatmap(tuple(masks.shape[-2:])) for e in of_prompt], 1)
        precision = segmentation_average_precision(maps.flatten(0, 1), masks.flatten(0, 1))
        found[row] = {
            "segmentation AP": precision.unflatten(0, (-1, 2)).mean(1),
            "class discrimination": class_discrimination(maps, masks),
        }
    curves = [_deleted(matcher, model, batch["image"], e) for e in of_prompt]
    for row in map(str, rows):
        found[row] |= {q: torch.stack([c[row][q] for c in curves]).mean(0) for q in DELETED}
    return found


def _deleted(
    matcher: TextMatcher, model: TokenModel, images: Tensor, explanations: Mapping[str, Explanation]
) -> Values:
    """Return what deletion does to the cosine of the explained prompt, its mean over all levels."""
    scores = {row: e.attribution for row, e in explanations.items()}
    found: Values = {}
    for row, curves in deletion_logits(model, images, scores, batch_size=32).items():
        target = explanations[row].target[:, None]
        whole = _cosines(matcher, explanations[row].logits.gather(1, target))[:, 0]
        mif, lif = (
            _cosines(matcher, of.gather(2, target[:, None].expand(-1, of.shape[1], 1))).mean((1, 2))
            for of in (curves.most_influential_first, curves.least_influential_first)
        )
        found[row] = dict(zip(DELETED, (whole - mif, lif - whole, lif - mif), strict=True))
    return found


def _cosines(matcher: TextMatcher, scores: Tensor) -> Tensor:
    return scores / matcher.model.logit_scale.detach().exp()


def measured(matcher: TextMatcher, scenes: int, steps: int) -> tuple[Measured, float]:
    """Measure all methods on test scenes.

    Returns:
        What was measured, and the share of scenes whose two prompts score highest.
    """
    data = TwoGarments(batch_size=50, num_test=scenes)
    data.setup("test")
    batches = list(data.test_dataloader())
    model = read_token_model(matcher, batches[0]["image"])
    rows = method_rows(applicable(model, batches[0]["image"][:1]))
    with explanation_state(matcher):
        parts = [measured_scenes(matcher, batch, model, rows, steps) for batch in tqdm(batches)]
        with torch.no_grad():
            right = [
                batch["true"].gather(1, matcher(batch["image"]).topk(2).indices).all(1)
                for batch in batches
            ]
    return Measured(joined(parts)), torch.cat(right).double().mean().item()


def figure(matcher: TextMatcher, scenes: int) -> Image.Image:
    """Draw what methods show of both prompts of some test scenes, a line for each prompt."""
    data = TwoGarments(batch_size=scenes, num_test=scenes)
    data.setup("test")
    (batch,) = data.test_dataloader()
    model = read_token_model(matcher, batch["image"])
    reward = reward_function("logit", "multilabel")
    pictures = to_display_range(batch["image"], data.image_mean, data.image_std)
    rows = list(SHOWN.values())
    with explanation_state(matcher):
        of_prompt = [explained(model, batch["image"], rows, 1, batch[k], reward) for k in _PROMPTS]
    lines = []
    for scene, picture in enumerate(pictures):
        for label, mask, found in zip(_PROMPTS, _MASKS, of_prompt, strict=True):
            maps = {title: found[str(row)].attribution[scene] for title, row in SHOWN.items()}
            prompt = data.class_names[int(batch[label][scene])]
            lines.append(
                explanation_panel(picture, maps, batch[mask][scene], prompt, column_size=96)
            )
    return to_pil(torch.cat(lines, 1))


def page(found: Measured, right: float, scenes: int) -> str:
    """Return the tables as a page."""
    return "\n\n".join(
        [
            "# Which of two garments a text names",
            f"{scenes} held-out scenes with two garments, each explained under the prompts of "
            "both, by the model of `configs/clip.yaml`, which gives the two true prompts of 42 the "
            f"highest scores in {100 * right:.0f} % of them. "
            "`benchmarks/text_prompts_trained.py` made this page. Percent; plain → Libra, in "
            "brackets the 95 % bootstrap interval of the difference, bold if Libra is better for "
            "certain, ▼ if worse.",
            "Segmentation AP is that of a prompt's map on the pixels of its garment. Class "
            "discrimination is how much higher it is there than on the other garment.",
            methods_table(found, SEEN),
            "![What methods show of both prompts of three scenes](text_prompts_trained.png)",
            "Deletion of patches, mean over 10 to 90 %: by how much the cosine of image and prompt "
            "falls if the most influential ones go first (MIF), by how much it rises if the least "
            "influential ones do (LIF), and the sum of both.",
            methods_table(found, DELETED),
            "\n".join(f"- {tally(found, quantity)}" for quantity in (*SEEN, *DELETED)),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    matcher = TextMatcher.load_from_checkpoint(arguments.checkpoint, map_location="cpu").eval()
    found, right = measured(matcher, arguments.scenes, arguments.steps)
    write_csv(arguments.out / "text_prompts_trained.csv", {("clip", "text prompts"): found})
    text = page(found, right, arguments.scenes)
    picture = figure(matcher, 3).quantize(256)
    picture.save(arguments.out / "text_prompts_trained.png", optimize=True)
    (arguments.out / "text_prompts_trained.md").write_text(f"{text}\n")
    print(text)


if __name__ == "__main__":
    main()
