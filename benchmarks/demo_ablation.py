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

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

import libragrad_lightning  # noqa: F401  (repairs torchvision before anything imports it)
from findings_measures import faithfulness
from findings_report import MAIN, Measured
from findings_rows import Row
from findings_work import joined
from libragrad_lightning.attribution import log_odds
from libragrad_lightning.demo import ImageClassifier, ScatteredGarments
from libragrad_lightning.metrics.functional import Bootstrap
from libragrad_lightning.models import explanation_state, read_token_model

FULL = Row("fullgrad_plus", "libra")

ROWS: Mapping[str, Row] = {
    "full Libra": FULL,
    "no attention": Row("fullgrad_plus", "no attention"),
    "no normalization": Row("fullgrad_plus", "no normalization"),
    "no attention & norm": Row("fullgrad_plus", "no attention, no normalization"),
    "no activation": Row("fullgrad_plus", "no activation"),
    "no gate": Row("fullgrad_plus", "no gate"),
    "plain": Row("fullgrad_plus", "plain"),
    "no bias": Row("input_x_gradient_plus", "libra"),
}


def measured(classifier: ImageClassifier, count: int) -> Measured:
    """Measure the rule sets on validation images of the demo."""
    data = ScatteredGarments(batch_size=128, num_val=count)
    data.setup("validate")
    batches = [
        {name: tensor.to(classifier.device) for name, tensor in batch.items()}
        for batch in data.val_dataloader()
    ]
    model = read_token_model(classifier, batches[0]["image"])
    with explanation_state(classifier):
        parts = [
            faithfulness(model, batch, list(ROWS.values()), 1, "tokens", log_odds)
            for batch in tqdm(batches, "Explaining")
        ]
    return Measured(joined(parts), bootstrap=Bootstrap())


def table(found: Measured) -> Table:
    """Return means, intervals, and paired differences from the full rule set."""
    result = Table(title=f"Mean, 95 % interval; in brackets: against {next(iter(ROWS))}")
    for column in ("rule set", *MAIN):
        result.add_column(column)
    for name, row in ROWS.items():
        cells = []
        for quantity in MAIN:
            interval, change = found.interval(row, quantity), found.change(row, FULL, quantity)
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
    Console(width=140).print(table(measured(classifier.eval(), arguments.images)))


if __name__ == "__main__":
    main()
