"""Takes LibraGrad apart on the demo's model: Table 5 of the paper in the small.

    libragrad fit --config configs/demo.yaml
    python benchmarks/demo_ablation.py logs/demo/version_0/checkpoints/latest.ckpt

FullGrad+ of the predicted class under every rule set, on the same validation images: means with
95 % bootstrap intervals, and what each rule set gains or loses against the full one.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import libragrad_lightning  # noqa: F401  (repairs torchvision before anything imports it)

# isort: split
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tqdm import tqdm

from libragrad_lightning.attribution import METHODS, Explanation, explain_tokens, log_odds
from libragrad_lightning.backward import LIBRA, PLAIN, Role, RuleSet
from libragrad_lightning.classifier import ImageClassifier
from libragrad_lightning.data import GarmentsOnTextures
from libragrad_lightning.metrics.functional import (
    Bootstrap,
    bootstrap_interval,
    deletion_accuracy_curve,
    paired_bootstrap,
    segmentation_average_precision,
    symmetric_relevance_gain,
)
from libragrad_lightning.models import TokenModel, explanation_state, read_token_model
from libragrad_lightning.perturbation import deletion_logits

RULES: Mapping[str, RuleSet] = {
    "full Libra": LIBRA,
    "no attention": LIBRA.without(Role.ATTENTION),
    "no normalisation": LIBRA.without(Role.NORMALIZATION),
    "no attention & norm": LIBRA.without(Role.ATTENTION, Role.NORMALIZATION),
    "no activation": LIBRA.without(Role.ACTIVATION),
    "no gate": LIBRA.without(Role.PRODUCT),
    "plain": PLAIN,
}
NO_BIAS = "no bias"


def per_image(model: TokenModel, images: Tensor, masks: Tensor) -> dict[str, dict[str, Tensor]]:
    """Return for every rule set and metric the values of the images, `[B]`."""
    explained: dict[str, Explanation] = {}
    for name, rules in RULES.items():
        (explained[name],) = explain_tokens(
            model, images, rules=(rules,), method=METHODS["fullgrad_plus"], reward=log_odds
        )
    (explained[NO_BIAS],) = explain_tokens(
        model, images, rules=(LIBRA,), method=METHODS["input_x_gradient_plus"], reward=log_odds
    )
    scores = {name: e.attribution for name, e in explained.items()}
    curves = deletion_logits(model, images, scores, batch_size=512)
    found: dict[str, dict[str, Tensor]] = {}
    for name, e in explained.items():
        mif, lif = curves[name].most_influential_first, curves[name].least_influential_first
        found[name] = {
            "MIF accuracy drop": 1 - deletion_accuracy_curve(mif, e.target).mean(1),
            "SRG": symmetric_relevance_gain(mif, lif, e.target).mean(1),
            "segmentation AP": segmentation_average_precision(
                e.heatmap(tuple(masks.shape[-2:])), masks
            ),
        }
    return found


def measured(classifier: ImageClassifier, count: int) -> dict[str, dict[str, Tensor]]:
    """Measure the rule sets on validation images of the demo."""
    data = GarmentsOnTextures(batch_size=128, num_val=count)
    data.setup("validate")
    parts: list[dict[str, dict[str, Tensor]]] = []
    loader = data.val_dataloader()
    for batch in tqdm(loader, "Explaining"):
        images = batch["image"].to(classifier.device)
        model = read_token_model(classifier, images)
        with explanation_state(classifier):
            parts.append(per_image(model, images, batch["mask"].to(classifier.device)))
    return {
        name: {metric: torch.cat([part[name][metric] for part in parts]) for metric in values}
        for name, values in parts[0].items()
    }


def table(values: Mapping[str, Mapping[str, Tensor]], bootstrap: Bootstrap) -> Table:
    """Return means, intervals, and paired differences from the full rule set."""
    metrics = list(next(iter(values.values())))
    result = Table(title=f"Mean, 95 % interval; in brackets: against {next(iter(values))}")
    for column in ("rule set", *metrics):
        result.add_column(column)
    full = next(iter(values.values()))
    for name, of_rules in values.items():
        cells = []
        for metric in metrics:
            interval = bootstrap_interval(of_rules[metric], bootstrap)
            change = paired_bootstrap(of_rules[metric], full[metric], bootstrap)
            cells.append(
                f"{100 * interval.value:.1f} ({100 * interval.lower:.1f} to "
                f"{100 * interval.upper:.1f}) [{100 * change.value:+.1f}]"
            )
        result.add_row(name, *cells)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    arguments = parser.parse_args()
    classifier = ImageClassifier.load_from_checkpoint(arguments.checkpoint, map_location="cpu")
    values = measured(classifier.eval(), arguments.images)
    Console(width=140).print(table(values, Bootstrap()))


if __name__ == "__main__":
    main()
