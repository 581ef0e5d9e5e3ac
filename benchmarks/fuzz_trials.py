"""Metrics and operators beside slow references of a few lines, on maps that are hard to get right.

A trial draws its input from a seed and compares. `benchmarks/fuzz.py` runs them for as long as
wanted; the tests run a few of each.
"""

from __future__ import annotations

import libragrad_lightning  # noqa: F401  (repairs torchvision before timm imports it)  # isort: skip
import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache

import numpy as np
import timm
import torch
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from fuzz_scores import (
    agree,
    coco_precision,
    groups_of_patches,
    log_odds_and_gains,
    structure,
    two_objects,
)
from libragrad_lightning.metrics import functional as fn
from libragrad_lightning.models import TokenModel, explanation_state, read_token_model
from libragrad_lightning.perturbation import PERTURBATIONS, ImputePixels, deletion_logits

VALUES = (0.0, -0.0, 0.7, 1.0, -1.0, 2.0, 0.1, 1e-310, 1e300, 1e-12)
LEVELS = (0.0, 0.3, 0.5, 0.75)


def maps(generator: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return maps, masks and ignored pixels `[B, H, W]`: smooth, tied, or with NaN."""
    shape = tuple(generator.integers(1, 7, size=3))
    drawn = generator.normal(size=shape)
    kind = generator.integers(4)
    if kind == 1:
        drawn = generator.choice(VALUES, size=shape)
    elif kind == 2:
        drawn = np.full(shape, generator.choice(VALUES))
    elif kind == 3:
        drawn[generator.random(shape) < 0.1] = generator.choice([np.nan, np.inf, -np.inf])
    mask, ignore = generator.random(shape) < 0.4, generator.random(shape) < 0.2
    return torch.from_numpy(drawn), torch.from_numpy(mask), torch.from_numpy(ignore)


def beside_masks(
    found: Callable[..., Tensor], one: Callable[[np.ndarray, np.ndarray], float]
) -> Callable[[int], None]:
    """Return a trial that compares a function of maps and masks with one of pixels that count."""

    def trial(seed: int) -> None:
        drawn, mask, ignore = maps(np.random.default_rng(seed))
        expected = []
        for values, inside, out in zip(drawn.numpy(), mask.numpy(), ignore.numpy(), strict=True):
            values, inside = values[~out], inside[~out]
            valid = inside.any() and np.isfinite(values).all()
            expected.append(one(values, inside) if valid else math.nan)
        agree(found(drawn, mask, ignore), expected)

    return trial


def max_f1(values: np.ndarray, inside: np.ndarray) -> float:
    cut = [values >= threshold for threshold in values]
    return max(2 * (c & inside).sum() / (c.sum() + inside.sum()) for c in cut)


def energy(values: np.ndarray, inside: np.ndarray) -> float:
    exact = [max(Fraction(0), Fraction(v)) for v in values.tolist()]
    whole = sum(exact)
    return float(sum(np.array(exact)[inside]) / whole) if whole else math.nan


def hit(values: np.ndarray, inside: np.ndarray) -> float:
    return float(inside[values == values.max()].mean())


def accuracy_at_mean(values: np.ndarray, inside: np.ndarray) -> float:
    exact = np.array([Fraction(v) for v in values.tolist()])
    return float((np.asarray(exact > exact.sum() / len(exact), dtype=bool) == inside).mean())


def of_pairs(
    found: Callable[[Tensor, Tensor], Tensor], one: Callable[[np.ndarray, np.ndarray], float]
) -> Callable[[int], None]:
    """Return a trial that compares a function of two maps with one of their pixels."""

    def trial(seed: int) -> None:
        generator = np.random.default_rng(seed)
        shape = tuple(generator.integers(2, 6, size=3))
        first, second = generator.normal(size=(2, *shape)).round(int(generator.integers(1, 9)))
        expected = [one(a.ravel(), b.ravel()) for a, b in zip(first, second, strict=True)]
        agree(found(torch.from_numpy(first), torch.from_numpy(second)), expected)

    return trial


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(first @ second / math.sqrt((first @ first) * (second @ second)))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(spearmanr(first, second).statistic)


def probabilities(seed: int) -> None:
    """What deletion says of the target's probability and accuracy, sample by sample."""
    generator = np.random.default_rng(seed)
    batch, levels, classes = generator.integers(1, 6, size=3)
    scale = 10.0 ** generator.integers(-3, 4)
    logits = torch.from_numpy(generator.normal(size=(batch, classes)) * scale)
    masked = torch.from_numpy(generator.normal(size=(batch, levels, classes)) * scale)
    target = torch.from_numpy(generator.integers(classes, size=batch))
    drops, right = [], []
    for b, of in enumerate(target.tolist()):
        before = float(logits[b].softmax(0)[of])
        for level in masked[b]:
            drops.append(before - float(level.softmax(0)[of]))
            right.append(float(int(level.argmax()) == of))
    agree(fn.deletion_probability_drop(logits, masked, target).flatten(), drops)
    agree(fn.deletion_accuracy_curve(masked, target).flatten(), right)


def interval(seed: int) -> None:
    """An interval holds its value, and knows neither the order of samples nor names of groups."""
    generator = np.random.default_rng(seed)
    count = int(generator.integers(12, 40))
    samples = torch.from_numpy(generator.normal(size=count))
    groups = torch.from_numpy(generator.integers(12, size=count))
    order, draws = torch.from_numpy(generator.permutation(count)), fn.Bootstrap(num_resamples=99)
    found = fn.bootstrap_interval(samples, draws, groups=groups)
    again = fn.bootstrap_interval(samples[order], draws, groups=100 - 7 * groups[order])
    agree(found.value[None], [float(samples.mean())])
    agree(torch.stack([found.lower, found.upper]), [float(again.lower), float(again.upper)])


def deletion(operator: str) -> Callable[[int], None]:
    """Return a trial that compares an operator with a loop over images, orders and levels."""

    def trial(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        model = small_vit(seed % 3)
        images = torch.randn(2, 3, 16, 24, generator=generator, dtype=torch.float64)
        with explanation_state(model), torch.no_grad():
            read = read_token_model(model, images)
            scores = torch.randn(2, 6, generator=generator)
            given = ImputePixels(noise=0.0) if operator == "pixels_road" else operator
            found = deletion_logits(read, images, {"a": scores}, LEVELS, perturbation=given)["a"]
            for first, sign in (
                (found.most_influential_first, 1),
                (found.least_influential_first, -1),
            ):
                for b in range(2):
                    order = (-sign * scores[b]).argsort()
                    for s, level in enumerate(LEVELS):
                        left = order[math.floor(level * 6) :].sort().values
                        expected = what_is_left(read, images[b : b + 1], left, operator)
                        torch.testing.assert_close(first[b, s], expected[0], rtol=1e-9, atol=1e-9)

    return trial


def small_vit(kind: int) -> nn.Module:
    options = ({}, {"class_token": False, "global_pool": "avg"}, {"reg_tokens": 2})[kind]
    torch.manual_seed(0)
    size = {"patch_size": 8, "img_size": (16, 24), "embed_dim": 12, "depth": 2, "num_heads": 2}
    return (
        timm.create_model("vit_tiny_patch16_224", num_classes=3, **size, **options).eval().double()
    )


def what_is_left(read: TokenModel, image: Tensor, left: Tensor, operator: str) -> Tensor:
    """Return the logits of an image with some of its patches."""
    prefix, tokens = read.prefix(image), read.tokens(image)
    if operator in ("tokens", "drop_tokens"):
        return read.logits_from_patches(image, tokens, left[None])
    if operator == "zero_tokens":
        kept = torch.zeros(tokens.shape[1], 1, dtype=tokens.dtype)
        kept[:prefix], kept[prefix + left] = 1, 1
        return read.logits_from_tokens(image, tokens * kept)
    hidden = torch.zeros(image.shape[2:], dtype=torch.bool)
    for patch in {*range(6)} - {*left.tolist()}:
        rows, columns = (slice(8 * n, 8 * n + 8) for n in divmod(patch, 3))
        hidden[rows, columns] = True
    if operator == "pixels_road":
        filling = weighted_means(image[0], hidden)[None]
    else:
        filling = PERTURBATIONS[operator].fill(image)
    return read.logits(torch.where(hidden, filling, image))


def weighted_means(image: Tensor, hidden: Tensor) -> Tensor:
    """Return an image `[C, H, W]` whose hidden pixels are means of their neighbors, all at once."""
    gone, weights = hidden.flatten(), neighbor_weights(*hidden.shape)
    if bool(gone.all()):
        return image.mean((1, 2), keepdim=True).expand_as(image)
    shares, pixels = weights[gone] / weights[gone].sum(1, keepdim=True), image.flatten(1).mT.clone()
    inner = torch.eye(int(gone.sum()), dtype=image.dtype) - shares[:, gone]
    pixels[gone] = torch.linalg.solve(inner, shares[:, ~gone] @ pixels[~gone])
    return pixels.mT.reshape(image.shape)


@cache
def neighbor_weights(height: int, width: int) -> Tensor:
    """Return how much every pixel counts for every other one, by how far it is."""
    places = list(itertools.product(range(height), range(width)))
    known = {1.0: 1 / 6, math.sqrt(2): 1 / 12}
    rows = [[known.get(math.dist(one, other), 0.0) for other in places] for one in places]
    return torch.tensor(rows, dtype=torch.float64)


TRIALS: dict[str, Callable[[int], None]] = {
    "segmentation AP": beside_masks(
        fn.segmentation_average_precision, lambda v, inside: average_precision_score(inside, v)
    ),
    "max F1": beside_masks(fn.segmentation_max_f1, max_f1),
    "energy inside": beside_masks(fn.energy_inside, energy),
    "pointing game": beside_masks(fn.pointing_hits, hit),
    "pixel accuracy": beside_masks(
        lambda *maps: fn.pixel_accuracy(fn.mask_confusion(*maps)), accuracy_at_mean
    ),
    "cosine": of_pairs(fn.map_cosine_similarity, cosine),
    "rank correlation": of_pairs(fn.map_rank_correlation, rank_correlation),
    "probabilities": probabilities,
    "interval": interval,
    "log-odds and gains": log_odds_and_gains,
    "two objects": two_objects,
    "structure": structure,
    "groups of patches": groups_of_patches,
    "COCO precision": coco_precision,
    **{name: deletion(name) for name in PERTURBATIONS},
}
"""Every trial by its name; it raises `AssertionError` where values differ."""
