"""However samples come to a metric, and wherever it was kept meanwhile, its value is the same."""

import math
import pickle
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import CASES, Batch, split
from torchmetrics import Metric

from libragrad_lightning.metrics import CocoMaskAP, ConfidenceInterval, PairedDifference
from libragrad_lightning.metrics.functional import Bootstrap

SAMPLES = 6
DRAWS = Bootstrap(num_resamples=20)


@dataclass(frozen=True)
class Kind:
    """A metric with the batch that it is given, as keywords."""

    make: Callable[[], Metric]
    whole: Batch
    pairs: bool = False

    def parts(self, sizes: Sequence[int]) -> list[dict[str, object]]:
        parts = split(self.whole, *sizes)
        if not self.pairs:
            return parts
        return [{"first": part, "second": spoilt(part)} for part in parts]


def spoilt(part: Batch) -> Batch:
    """Return other values of the same samples."""
    negated = {k: v.neg() if v.is_floating_point() else v for k, v in part.items()}
    return {k: 1 + v if "probability" in k else v for k, v in negated.items()}


def kinds() -> dict[str, Kind]:
    found = {}
    for name, case in CASES.items():
        batch = case.spoilt(SAMPLES) if case.spoil else case.batch(SAMPLES)
        found[name] = Kind(case.make, batch)
        found[f"interval of {name}"] = Kind(
            lambda case=case: ConfidenceInterval(case.make(), DRAWS), batch
        )
        found[f"difference of {name}"] = Kind(
            lambda case=case: PairedDifference(case.make(), DRAWS), batch, pairs=True
        )
    coco = {"score": torch.rand(SAMPLES), **CASES["segmentation_ap"].batch(SAMPLES)}
    return found | {"coco": Kind(CocoMaskAP, coco)}


KINDS = kinds()
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def reloaded(metric: Metric, kind: Kind) -> Metric:
    metric.persistent(True)
    other = kind.make()
    other.persistent(True)
    other.load_state_dict(metric.state_dict())
    return other


def merged(metric: Metric, kind: Kind) -> Metric:
    other = kind.make()
    other.merge_state(metric)
    return other


WAYS: dict[str, Callable[[Metric, Kind], Metric]] = {
    "as it is": lambda metric, kind: metric,
    "computed": lambda metric, kind: (metric.compute(), metric)[1],
    "merged": merged,
    "reloaded": reloaded,
    "pickled": lambda metric, kind: pickle.loads(pickle.dumps(metric)),
    "copied": lambda metric, kind: deepcopy(metric),
    "cloned": lambda metric, kind: metric.clone(),
}


def fed(kind: Kind, parts: Sequence[dict[str, object]], ways: Sequence[str] = ()) -> Metric:
    """Return a metric that got the parts, and went some way after each."""
    metric = kind.make()
    for i, part in enumerate(parts):
        (metric.forward if i % 2 else metric.update)(**part)
        for way in ways[i : i + 1]:
            metric = WAYS[way](metric, kind)
    return metric


def values(metric: Metric) -> list[torch.Tensor]:
    value = metric.compute()
    return list(value.values()) if isinstance(value, dict) else [value]


def assert_equal(metric: Metric, other: Metric) -> None:
    for one, two in zip(values(metric), values(other), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12, equal_nan=True)
    for child, twin in zip(metric.modules(), other.modules(), strict=True):
        if hasattr(child, "num_samples"):
            assert (child.num_samples, child.num_invalid) == (twin.num_samples, twin.num_invalid)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)),
    cuts=st.sets(st.integers(1, SAMPLES - 1)).map(sorted),
    ways=st.lists(st.sampled_from(list(WAYS)), min_size=SAMPLES, max_size=SAMPLES),
)
def test_any_way_of_samples_gives_the_same_value(kind, cuts, ways):
    kind = KINDS[kind]
    sizes = [stop - start for start, stop in zip([0, *cuts], [*cuts, SAMPLES], strict=True)]
    assert_equal(fed(kind, kind.parts(sizes), ways), fed(kind, kind.parts([SAMPLES])))


@every_kind
def test_merging_adds_what_both_have_seen_also_behind_a_computed_value(kind):
    first, second = (fed(kind, [part]) for part in kind.parts([2, 4]))
    first.compute()
    first.merge_state(second)
    assert_equal(first, fed(kind, kind.parts([SAMPLES])))
    assert_equal(second, fed(kind, kind.parts([2, 4])[1:]))


@every_kind
def test_loading_replaces_what_was_seen_and_leaves_the_dictionary_alone(kind):
    metric, other = (fed(kind, [part]) for part in kind.parts([2, 4]))
    for one in (metric, other):
        one.persistent(True)
    saved = metric.state_dict()
    for _ in range(2):
        other.compute()
        other.load_state_dict(saved)
        assert_equal(other, metric)
        other.update(**kind.parts([2, 4])[1])
        assert_equal(other, fed(kind, kind.parts([SAMPLES])))


def test_what_is_saved_of_wrappers_are_the_states_of_what_they_wrap():
    interval = fed(KINDS["interval of aopc"], KINDS["interval of aopc"].parts([SAMPLES]))
    assert not interval.state_dict()
    interval.persistent(True)
    states = {"kept", "num_invalid", "num_samples", "probability_drop"}
    assert interval.state_dict().keys() == {f"metric.{state}" for state in states}
    assert interval.metric_state.keys() == interval.state_dict().keys()


def test_what_measures_something_else_is_not_merged():
    interval = KINDS["interval of accuracy"].make()
    for other in (KINDS["interval of accuracy_drop"], KINDS["difference of accuracy"]):
        with pytest.raises(ValueError, match=r"Expected .*incoming"):
            interval.merge_state(other.make())
    assert interval.metric.num_samples == 0


def test_a_metric_that_keeps_samples_saves_them():
    metric = CASES["aopc"].make()
    metric.persistent(True)
    metric.keep_samples()
    assert "kept" in metric.state_dict()


def test_a_metric_that_gathers_at_every_step_is_compared_too():
    case = CASES["accuracy"]
    metric = type(case.make())(4, dist_sync_on_step=True)
    pair = PairedDifference(metric, DRAWS)
    assert pair.dist_sync_on_step
    pair.update(case.batch(3), case.batch(3, seed=1))
    assert math.isfinite(pair.compute()["value"])
    assert not PairedDifference(metric, dist_sync_on_step=False).dist_sync_on_step


@every_kind
def test_inputs_with_a_graph_leave_none_behind(kind):
    (part,) = kind.parts([SAMPLES])
    rows = part.values() if kind.pairs else [part]
    leaves = [v for row in rows for v in row.values() if v.is_floating_point()]
    try:
        for leaf in leaves:
            leaf.requires_grad_()
        found = kind.make()
        value = found(**part)
        states = [s for m in found.modules() for s in getattr(m, "metric_state", {}).values()]
    finally:
        for leaf in leaves:
            leaf.requires_grad_(False)
    tensors = [t for s in states for t in (s if isinstance(s, list) else [s])]
    assert not any(t.requires_grad for t in tensors)
    given = value.values() if isinstance(value, dict) else [value]
    for one, two in zip(given, values(fed(kind, [part])), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12, equal_nan=True)
        assert not one.requires_grad
