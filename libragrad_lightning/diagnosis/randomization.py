"""Does the map change when the weights are shuffled? (Adebayo et al., NeurIPS 2018)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from libragrad_lightning.attribution import Explanation, Method, Reward, Target, Task, explain
from libragrad_lightning.backward import RuleSet, rule_set
from libragrad_lightning.diagnosis.stages import Stage, stages_of
from libragrad_lightning.metrics.functional import map_rank_correlation, map_structural_similarity
from libragrad_lightning.models import explanation_state, read_token_model

_SIGMA = 1.5
"""Deviation of the window of SSIM, in patches; less where a grid is too small for it."""


@dataclass(frozen=True)
class Spread:
    """Values over images, those left out that are no numbers; NaN without any.

    Attributes:
        median: The median.
        lower: The lower quartile.
        upper: The upper quartile.
    """

    median: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.lower:.2f}, {self.upper:.2f}]"


@dataclass(frozen=True)
class RandomizedStage:
    """How like maps are to those of the intact model, with weights shuffled down to a stage.

    Attributes:
        stage: ``head``, the path of a block, or ``stem``.
        rules: The name of the rule set.
        rank_correlations: Spearman's correlation with the map of the intact model, by image `[B]`;
            NaN where a map is constant or not finite.
        structural_similarities: SSIM of the two, by image `[B]`; NaN also where a grid has a single
            row or column.
    """

    stage: str
    rules: str
    rank_correlations: Tensor
    structural_similarities: Tensor

    @property
    def rank_correlation(self) -> Spread:
        """Median and quartiles of Spearman's correlation."""
        return _spread(self.rank_correlations)

    @property
    def structural_similarity(self) -> Spread:
        """Median and quartiles of SSIM."""
        return _spread(self.structural_similarities)


@dataclass(frozen=True)
class RandomizationReport:
    """What became of maps while weights were shuffled from the head down to the stem.

    Attributes:
        stages: In the order in which they were shuffled, for every stage one of each rule set.
    """

    stages: tuple[RandomizedStage, ...]

    def table(self) -> Table:
        """Return the report as a rich table for the terminal."""
        table = Table(
            title="Similarity to the map of the intact model: median over images [quartiles]",
            title_justify="left",
        )
        for column in ("shuffled down to", "rules", "Spearman", "SSIM"):
            table.add_column(column, justify="right" if column[0] == "S" else "left")
        for found in self.stages:
            spreads = (found.rank_correlation, found.structural_similarity)
            table.add_row(found.stage, found.rules, *map(str, spreads))
        return table


def randomization_check(
    model: nn.Module,
    images: Tensor,
    *,
    method: str | Method = "fullgrad_plus",
    rules: Sequence[str | RuleSet] = ("plain", "libra"),
    target: Target | Tensor | Sequence[int] = "predicted",
    reward: str | Reward = "log_odds",
    task: Task | None = None,
    forward: Callable[[Tensor], Any] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> RandomizationReport:
    """Shuffle the weights of a model from the head down, and compare its maps at every stage.

    A map that stays as it was does not show what these weights have learned. The model is left as
    it was, to the last bit, also if a map fails.

    The entries of each parameter are permuted, so that their distribution stays: what is the same
    everywhere, such as the biases of a fresh layer, stays as it is, and so do running statistics.
    The classes that are explained are those of the intact model. Costs one explanation for every
    stage and rule set, of which there are two more than blocks, and one of the intact model.

    Args:
        model: Any module from images to logits, with its weights in memory twice meanwhile.
        images: `[B, C, H, W]`, floating point, prepared as the model expects, on its device.
        method: The attribution method, by name or a function.
        rules: The rule sets, by name or as objects.
        target: The classes to explain, as for `explain`.
        reward: What is differentiated, as for `explain`.
        task: What the scores mean, as for `explain`.
        forward: Images to logits; the model itself by default.
        batch_size: Images explained at once; by default as many as fit into 2 GiB.
        seed: Of the permutations, which take nothing from other random streams.

    Raises:
        UnreadableModelError: If the model's features cannot be found, or the images do not fit.
        ValueError: If a name is unknown, or the target is no class.

    Source:
        Adebayo et al., Sanity Checks for Saliency Maps (NeurIPS 2018), cascading randomization,
        whose layers are drawn anew as at the start of training.
    """
    chosen = [rule_set(each) for each in rules]
    generator = torch.Generator().manual_seed(seed)
    with explanation_state(model):
        reading = read_token_model(model, images, forward=forward)
        stages = stages_of(model, reading, images[:1])

        def maps(rules: RuleSet, target: Target | Tensor | Sequence[int]) -> Explanation:
            return explain(
                model,
                images,
                target=target,
                method=method,
                rules=rules,
                reward=reward,
                task=task,
                sums=(),
                batch_size=batch_size,
                progress=False,
                reading=reading,
            )

        intact = [maps(each, target) for each in chosen]
        found = []
        with _put_back(stages):
            for stage in stages:
                _shuffle(stage, generator)
                for each, before in zip(chosen, intact, strict=True):
                    found.append(_compared(stage.name, before, maps(each, before.target)))
    return RandomizationReport(tuple(found))


@contextmanager
def _put_back(stages: Sequence[Stage]) -> Iterator[None]:
    saved = [(weight, weight.detach().clone()) for stage in stages for weight in stage.weights]
    try:
        yield
    finally:
        for weight, value in saved:
            weight.data.copy_(value)


@torch.no_grad()
def _shuffle(stage: Stage, generator: torch.Generator) -> None:
    for weight in stage.weights:
        order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
        # By `.data`, as graphs that the user holds may have saved the weights.
        weight.data.copy_(weight.flatten()[order].view_as(weight))


def _compared(stage: str, before: Explanation, now: Explanation) -> RandomizedStage:
    first, second = before.attribution, now.attribution
    side = min(first.shape[1:])
    if side > 1:
        sigma = min(_SIGMA, (side - 1) / 3.5)
        structural = map_structural_similarity(second, first, sigma)
    else:
        structural = torch.full((len(first),), float("nan"))
    return RandomizedStage(stage, now.rules.name, map_rank_correlation(second, first), structural)


def _spread(values: Tensor) -> Spread:
    known = values[values.isfinite()]
    if not len(known):
        return Spread(*3 * [float("nan")])
    shares = torch.tensor([0.5, 0.25, 0.75], dtype=known.dtype, device=known.device)
    return Spread(*known.quantile(shares).tolist())
