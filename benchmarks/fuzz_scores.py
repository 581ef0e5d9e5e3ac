"""More trials: scores of logits, two objects, structure, COCO's precision and groups of patches."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score
from torch import Tensor

from libragrad_lightning.metrics import CocoMaskAP
from libragrad_lightning.metrics import functional as fn

_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_SIGMA, _REACH = 1.5, 5


def agree(found: Tensor, expected: ArrayLike) -> None:
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)


def log_odds_and_gains(seed: int) -> None:
    """What deletion says of log-probabilities, gains and areas."""
    generator = np.random.default_rng(seed)
    batch, levels, classes = generator.integers(1, 6, size=3)
    intact, first, last = (
        generator.normal(size=shape) * 10.0 ** generator.integers(-2, 3)
        for shape in ((batch, classes), *[(batch, levels, classes)] * 2)
    )
    target = generator.integers(classes, size=batch)
    drops, gains, relative = (np.zeros((batch, levels)) for _ in range(3))
    for b, of in enumerate(target):
        for s in range(levels):
            drops[b, s] = _log_probability(intact[b], of) - _log_probability(first[b, s], of)
            gains[b, s] = int(last[b, s].argmax() == of) - int(first[b, s].argmax() == of)
            relative[b, s] = (intact[b, of] - first[b, s, of]) / abs(intact[b, of])
    given = [torch.from_numpy(values) for values in (intact, first, last, target)]
    agree(fn.deletion_log_odds_drop(given[0], given[1], given[3]), drops)
    agree(fn.symmetric_relevance_gain(given[1], given[2], given[3]), gains)
    agree(fn.deletion_relative_drop(given[0], given[1], given[3]), relative)
    places = np.unique(generator.random(levels + 1).round(3))
    if len(places) > 1:
        scores = generator.normal(size=(batch, len(places)))
        area = [np.trapezoid(row, places) / (places[-1] - places[0]) for row in scores]
        agree(fn.area_under_curve(torch.from_numpy(scores), places.tolist()), area)


def _log_probability(logits: np.ndarray, of: int) -> float:
    largest = logits.max()
    return float(logits[of] - largest - math.log(np.exp(logits - largest).sum()))


def two_objects(seed: int) -> None:
    """Whether the maps of two classes tell their objects apart."""
    generator = np.random.default_rng(seed)
    batch, height, width = generator.integers(1, 6, size=3)
    maps = generator.normal(size=(batch, 2, height, width)).round(int(generator.integers(1, 9)))
    masks = generator.random(maps.shape) < 0.4
    expected: dict[str, list[float]] = {"class": [], "target": [], "share": []}
    for b in range(batch):
        counts = ~(masks[b].all(0)).ravel()
        pair = [values.ravel()[counts] for values in maps[b]]
        inside = [mask.ravel()[counts] for mask in masks[b]]
        if not all(mask.any() for mask in inside):
            for values in expected.values():
                values.append(math.nan)
            continue
        ap = [[average_precision_score(mask, values) for mask in inside] for values in pair]
        expected["class"].append((ap[0][0] - ap[0][1] + ap[1][1] - ap[1][0]) / 2)
        expected["target"].append(ap[0][0] - ap[0][1])
        own, other = (pair[0].clip(0)[mask].sum() for mask in inside)
        expected["share"].append(own / (own + other) if own + other else math.nan)
    given, boolean = torch.from_numpy(maps), torch.from_numpy(masks)
    agree(fn.class_discrimination(given, boolean), expected["class"])
    one = (given[:, 0], boolean[:, 0], boolean[:, 1])
    agree(fn.target_discrimination(*one), expected["target"])
    agree(fn.target_share(*one), expected["share"])


def structure(seed: int) -> None:
    """Structural similarity by Gaussian filters, maps mirrored at their borders."""
    generator = np.random.default_rng(seed)
    shape = (generator.integers(1, 4), *generator.integers(_REACH + 1, 20, size=2))
    first = generator.normal(size=shape)
    second = first * generator.normal() + generator.normal(size=shape) * generator.random()
    expected = []
    for a, b in zip(first, second, strict=True):
        a, b = a / abs(a).max(), b / abs(b).max()
        mean_a, mean_b, *squares = (_blurred(v) for v in (a, b, a * a, b * b, a * b))
        of_a, of_b = squares[0] - mean_a**2, squares[1] - mean_b**2
        shared = squares[2] - mean_a * mean_b
        c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
        local = (2 * mean_a * mean_b + c1) * (2 * shared + c2)
        local /= (mean_a**2 + mean_b**2 + c1) * (of_a + of_b + c2)
        expected.append(local.mean())
    agree(
        fn.map_structural_similarity(torch.from_numpy(first), torch.from_numpy(second), _SIGMA),
        expected,
    )


def _blurred(values: np.ndarray) -> np.ndarray:
    return np.asarray(gaussian_filter(values, _SIGMA, radius=_REACH, mode="mirror"))


def groups_of_patches(seed: int) -> None:
    """SaCo, pair by pair."""
    generator = np.random.default_rng(seed)
    batch, count = generator.integers(1, 4), generator.integers(2, 9)
    salience = -np.sort(-generator.normal(size=(batch, count)).round(1), axis=1)
    drops = generator.normal(size=(batch, count)).round(1)
    expected = []
    for s, d in zip(salience, drops, strict=True):
        pairs = list(combinations(range(count), 2))
        whole = sum(s[i] - s[j] for i, j in pairs)
        agreed = sum((s[i] - s[j]) * (1 if d[i] >= d[j] else -1) for i, j in pairs)
        expected.append(agreed / whole if whole else math.nan)
    agree(fn.salience_coefficient(torch.from_numpy(salience), torch.from_numpy(drops)), expected)


def coco_precision(seed: int) -> None:
    """COCO's mask AP of one class, one prediction for an image, from its definition."""
    generator = np.random.default_rng(seed)
    batch, objects = generator.integers(1, 6, size=2)
    side = generator.integers(3, 8)
    maps = generator.normal(size=(batch, side, side))
    masks = generator.random((batch, objects, side, side)) < generator.choice([0.2, 0.5, 0.8])
    masks[0, 0, 0, 0] = True
    scores = generator.permutation(batch) / batch
    for b in range(batch):  # some are found
        if generator.random() < 0.6:
            maps[b] = masks[b, 0] + 0.2 * maps[b]
    there = masks.any((1, 2, 3))
    best = [
        max(_overlap(m > m.mean(), mask) for mask in own if mask.any())
        for m, own in zip(maps[there], masks[there], strict=True)
    ]
    order = np.argsort(-scores[there])
    total = masks[there].any((2, 3)).sum()
    found = [_ranked_precision(np.array(best)[order] >= t - 1e-12, total) for t in _THRESHOLDS]
    given = [torch.from_numpy(values) for values in (maps, masks, scores)]
    agree(CocoMaskAP()(given[0], given[1], score=given[2]), np.mean(found))


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def _ranked_precision(right: np.ndarray, total: int) -> float:
    """Return the mean precision at 101 recalls, of predictions in the order of their scores."""
    hits = right.cumsum()
    precision, recall = hits / np.arange(1, len(right) + 1), hits / total
    at_least = [recall >= point - 1e-12 for point in np.linspace(0, 1, 101)]
    return float(np.mean([precision[known].max() if known.any() else 0.0 for known in at_least]))
