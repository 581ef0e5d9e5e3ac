import pickle

import matplotlib as mpl
import numpy as np
import pytest
import torch
from metric_cases import CASES, LEVELS, SPOILABLE, draw
from scipy import stats
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy

from libragrad_lightning.metrics import (
    AOPC,
    CompletenessError,
    ConfidenceInterval,
    DeletionAccuracy,
    MaskIoU,
    PairedDifference,
    SegmentationAP,
)
from libragrad_lightning.metrics.functional import (
    Bootstrap,
    bootstrap_interval,
    deletion_accuracy_curve,
    mask_confusion,
    mean_iou,
    paired_bootstrap,
)
from libragrad_lightning.metrics.functional.resampling import Resampling

torch.set_num_threads(1)
FEW = Bootstrap(num_resamples=50)


def values(count=200, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def resampling(count, seed):
    return Resampling(count, np.random.Generator(np.random.SFC64(seed)))


def tails(confidence, count):
    """Return the shares of resampled values below the bounds of an expanded interval."""
    quantile = stats.t.ppf((1 + confidence) / 2, count - 1)
    outside = stats.norm.sf(np.sqrt(count / (count - 1)) * quantile)
    return [outside, 1 - outside]


def bounds(interval):
    return interval.value.item(), interval.lower.item(), interval.upper.item()


def as_tuple(found):
    return found["value"].item(), found["lower"].item(), found["upper"].item()


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_interval_has_the_width_that_theory_gives_the_mean(confidence):
    samples = values()
    found = bootstrap_interval(samples, Bootstrap(confidence, num_resamples=4000))
    half = torch.special.ndtri(torch.tensor((1 + confidence) / 2)) * samples.std() / 200**0.5
    assert found.value.item() == pytest.approx(samples.mean().item(), abs=1e-12)
    assert (found.upper - found.value).item() == pytest.approx(half.item(), rel=0.1)
    assert (found.value - found.lower).item() == pytest.approx(half.item(), rel=0.1)


def test_groups_of_one_change_nothing():
    samples = values(30)
    assert bounds(bootstrap_interval(samples, FEW)) == bounds(
        bootstrap_interval(samples, FEW, groups=torch.arange(30).flip(0))
    )


def test_copies_of_a_sample_say_no_more_than_the_sample():
    samples, groups = values(40), torch.arange(40)
    once = bounds(bootstrap_interval(samples, FEW))
    copied = bootstrap_interval(samples.repeat(5), FEW, groups=groups.repeat(5))
    assert bounds(copied) == pytest.approx(once, abs=1e-12)
    blind = bootstrap_interval(samples.repeat(5), FEW)
    assert (copied.upper - copied.lower) > 1.8 * (blind.upper - blind.lower)


def test_groups_of_any_size_equal_a_loop_over_the_same_draws():
    samples, groups = values(12), torch.tensor([7, 7, 2, 5, 5, 5, 5, 2, 9, 7, 9, 11])
    parts = [samples[groups == g] for g in groups.unique()]
    parts.sort(key=lambda part: part.sum())
    means = [
        torch.cat([part for part, n in zip(parts, times, strict=True) for _ in range(n)]).mean()
        for times in resampling(len(parts), seed=3).times(60).tolist()
    ]
    expected = torch.stack(means).quantile(
        torch.tensor(tails(0.9, 12**2 / (3**2 + 2**2 + 4**2 + 2**2 + 1)), dtype=torch.float64)
    )
    settings = Bootstrap(0.9, num_resamples=60, seed=3)
    shuffled = torch.randperm(12)
    for order in (torch.arange(12), shuffled):
        found = bootstrap_interval(samples[order], settings, groups=groups[order])
        assert found.value.item() == pytest.approx(samples.mean().item(), abs=1e-12)
        torch.testing.assert_close(torch.stack([found.lower, found.upper]), expected)


def test_pairs_are_drawn_in_groups_and_invalid_samples_left_out():
    samples, groups = values(20), torch.arange(20) // 4
    baseline = samples - groups  # the gain is that of the group
    spoilt = samples.clone()
    spoilt[3] = torch.nan
    found = paired_bootstrap(spoilt, baseline, FEW, groups=groups)
    gains = groups.double()[torch.arange(20) != 3]
    assert found.value.item() == pytest.approx(gains.mean().item(), abs=1e-12)
    kept = torch.arange(20) != 3
    again = paired_bootstrap(samples[kept], baseline[kept], FEW, groups=groups[kept])
    assert bounds(found) == bounds(again)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (torch.zeros(5), "`groups` to be an integer tensor but got torch.float32"),
        (torch.zeros(5, dtype=torch.bool), "integer tensor but got torch.bool"),
        (torch.zeros(4, dtype=torch.long), r"shape \[5\].*but got \[4\]"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values(5), groups=groups)


def test_interval_equals_a_loop_over_the_same_draws():
    samples = values(20)
    ordered = np.sort(samples.numpy())
    means = [np.repeat(ordered, n).mean() for n in resampling(20, seed=3).times(100).numpy()]
    found = bootstrap_interval(samples, Bootstrap(0.9, 100, seed=3))
    expected = (samples.mean().item(), *np.quantile(means, tails(0.9, 20)))
    assert bounds(found) == pytest.approx(expected, abs=1e-12)


def test_interval_depends_on_the_seed_and_not_on_the_order():
    samples = values()[:, None] * torch.tensor([1.0, -2.0, 0.5])
    interval = bounds(bootstrap_interval(samples))
    assert bounds(bootstrap_interval(samples)) == interval
    assert bounds(bootstrap_interval(samples.flip(0))) == pytest.approx(interval, abs=1e-12)
    assert bounds(bootstrap_interval(samples, Bootstrap(seed=1)))[1:] != interval[1:]


def test_samples_that_are_not_finite_are_left_out():
    samples = torch.stack([values(), values(seed=1)], dim=1)
    spoilt = torch.cat([samples, torch.tensor([[torch.nan, 1.0], [1.0, torch.inf]])])
    assert bounds(bootstrap_interval(spoilt)) == bounds(bootstrap_interval(samples))
    assert np.isnan(bounds(bootstrap_interval(spoilt[-2:]))).all()
    assert np.isnan(bounds(bootstrap_interval(torch.zeros(0)))).all()


def test_pairing_removes_what_the_samples_have_in_common():
    hard, noise = 10 * values(), 0.1 * values(seed=1)
    paired = bounds(paired_bootstrap(hard + 1 + noise, hard))
    assert paired[0] == pytest.approx(1 + noise.mean().item(), abs=1e-12)
    assert paired[2] - paired[1] < 0.1
    alone = bounds(bootstrap_interval(hard))
    assert alone[2] - alone[1] > 2
    assert paired == pytest.approx(bounds(bootstrap_interval(1 + noise)), abs=0.02)


def test_pairs_stay_together_when_one_of_them_is_not_finite():
    first, second = values(), values(seed=1)
    expected = bounds(paired_bootstrap(first[2:], second[2:]))
    first[0], second[1] = torch.nan, torch.nan
    assert bounds(paired_bootstrap(first, second)) == expected


def test_wrapper_equals_the_function():
    batch = draw(9)
    logits, target = batch["masked_logits"], batch["target"]
    metric = ConfidenceInterval(DeletionAccuracy(LEVELS))
    metric.update(logits[:4], target[:4])
    metric.update(logits[4:], target=target[4:])
    expected = bootstrap_interval(deletion_accuracy_curve(logits, target))
    assert as_tuple(metric.compute()) == bounds(expected)


def test_statistics_that_are_no_means_are_taken_of_each_draw():
    batch = draw(9)
    arguments = (batch["attribution"], batch["mask"])
    metric = ConfidenceInterval(MaskIoU())
    metric.update(*arguments)
    expected = bootstrap_interval(mask_confusion(*arguments), statistic=mean_iou)
    assert as_tuple(metric.compute()) == bounds(expected)


@pytest.mark.parametrize("name", CASES)
def test_every_metric_has_an_interval_around_its_value(name):
    case = CASES[name]
    metric, plain = ConfidenceInterval(case.make(), FEW), case.make()
    batch = case.spoilt(8) if case.spoil else case.batch(8)
    metric.update(**batch)
    plain.update(**batch)
    found = metric.compute()
    torch.testing.assert_close(metric.metric.compute(), plain.compute(), rtol=0, atol=0)
    expected = plain.statistic(plain._mean()[None])[0]
    torch.testing.assert_close(found["value"], expected, rtol=0, atol=1e-12)
    assert found["lower"] <= found["value"] <= found["upper"]
    assert metric.metric.samples().shape[0] == 8
    assert metric.metric.num_invalid == bool(case.spoil)


def test_samples_are_kept_only_if_asked():
    metric = CompletenessError()
    assert set(metric._defaults) == {"absolute_error", "num_samples", "num_invalid"}
    ConfidenceInterval(metric).update(torch.zeros(3), torch.ones(3))
    assert metric.num_samples == 0
    metric.keep_samples()
    metric.keep_samples()
    assert metric.samples().shape == (0,)
    metric.update(torch.zeros(3), torch.ones(3))
    assert metric.samples().tolist() == [1, 1, 1]


def test_paired_wrapper_equals_the_function_and_skips_alike():
    first, second = draw(8), draw(8, seed=1)
    mask = first["mask"]
    first["attribution"][1] = 0.0  # constant: left out of one, so of the pair
    metric = PairedDifference(SegmentationAP())
    for part in (slice(0, 3), slice(3, 8)):
        metric.update(
            *({"attribution": b["attribution"][part], "mask": mask[part]} for b in (first, second))
        )
    kept = [i for i in range(8) if i != 1]
    apart = [SegmentationAP(), SegmentationAP()]
    for single, batch in zip(apart, (first, second), strict=True):
        single.keep_samples()
        single.update(batch["attribution"][kept], mask[kept])
    expected = paired_bootstrap(*[m.samples() for m in apart], statistic=apart[0].statistic)
    assert as_tuple(metric.compute()) == pytest.approx(bounds(expected), abs=1e-12)
    assert expected.value.item() == pytest.approx(
        (apart[0].compute() - apart[1].compute()).item(), abs=1e-12
    )


def test_a_paired_difference_of_what_is_no_mean_is_that_of_the_metric():
    first, second = draw(8), draw(8, seed=1)
    batches = [{"attribution": b["attribution"], "mask": first["mask"]} for b in (first, second)]
    apart = [MaskIoU(), MaskIoU()]
    for metric, batch in zip(apart, batches, strict=True):
        metric.update(**batch)
    found = PairedDifference(MaskIoU())(*batches)["value"]
    assert found == pytest.approx((apart[0].compute() - apart[1].compute()).item(), abs=1e-12)
    assert found != 0


def interval_of(metric, *seeds):
    for seed in seeds:
        batch = CASES["aopc"].batch(5, seed)
        if isinstance(metric, PairedDifference):
            other = CASES["aopc"].batch(5, seed + 10)
            metric.update(batch, other)
        else:
            metric.update(**batch)
    return metric


WRAPPERS = [ConfidenceInterval, PairedDifference]
every_wrapper = pytest.mark.parametrize("wrapper", WRAPPERS)


@every_wrapper
def test_wrappers_follow_the_contract_of_metrics(wrapper):
    metric = interval_of(wrapper(AOPC(LEVELS), FEW), 0)
    for copy in (metric.clone(), pickle.loads(pickle.dumps(metric))):
        assert as_tuple(interval_of(copy, 1).compute()) == as_tuple(
            interval_of(wrapper(AOPC(LEVELS), FEW), 0, 1).compute()
        )
    once = as_tuple(interval_of(wrapper(AOPC(LEVELS), FEW), 0).compute())
    assert as_tuple(metric.compute()) == once
    metric.reset()
    assert np.isnan(as_tuple(metric.compute())).all()
    assert as_tuple(interval_of(metric, 0).half().compute()) == once
    assert metric.higher_is_better is True
    assert wrapper(CompletenessError()).higher_is_better is False


@every_wrapper
def test_forward_gives_the_interval_of_the_batch(wrapper):
    metric = wrapper(AOPC(LEVELS), FEW)
    for seed in (0, 1):
        batch = CASES["aopc"].batch(5, seed)
        pair = (batch, CASES["aopc"].batch(5, seed + 10))
        found = metric(*pair) if wrapper is PairedDifference else metric(**batch)
        assert as_tuple(found) == as_tuple(interval_of(wrapper(AOPC(LEVELS), FEW), seed).compute())
    both = interval_of(wrapper(AOPC(LEVELS), FEW), 0, 1)
    assert as_tuple(metric.compute()) == pytest.approx(as_tuple(both.compute()), abs=1e-12)


def test_intervals_work_in_a_collection():
    collection = MetricCollection(
        {name: ConfidenceInterval(case.make(), FEW) for name, case in SPOILABLE.items()}
    )
    for seed in (0, 1):
        collection.update(**draw(5, seed))
    found = collection.compute()
    metric = ConfidenceInterval(AOPC(LEVELS), FEW)
    expected = interval_of(metric, 0, 1).compute()
    assert found["aopc_lower"] == expected["lower"]
    assert len(found) == 4 * len(SPOILABLE)


def test_intervals_can_be_drawn(monkeypatch):
    monkeypatch.setitem(mpl.rcParams, "backend", "agg")
    metric = interval_of(ConfidenceInterval(AOPC(LEVELS), FEW), 0)
    figure, axes = metric.plot()
    drawn = [line.get_ydata()[0] for line in axes.get_lines()[:3]]
    assert drawn == pytest.approx(as_tuple(metric.compute()))
    mpl.pyplot.close(figure)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"`confidence` to be between 0 and 1 but got 1"):
        Bootstrap(confidence=1)
    with pytest.raises(ValueError, match=r"`num_resamples` to be a positive integer but got 0"):
        Bootstrap(num_resamples=0)
    with pytest.raises(ValueError, match=r"`values` to be a floating point tensor"):
        bootstrap_interval(torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"`baseline` to have shape \[3\] to match `values` but"):
        paired_bootstrap(torch.zeros(3), torch.zeros(4))
    for wrapper in WRAPPERS:
        with pytest.raises(ValueError, match=r"mean over samples but got BinaryAccuracy"):
            wrapper(BinaryAccuracy())


def test_pairs_must_be_of_the_same_samples():
    metric = interval_of(PairedDifference(AOPC(LEVELS), FEW), 0)
    before = as_tuple(metric.compute())
    with pytest.raises(ValueError, match=r"hold the same samples but got 5 and 4 of them"):
        metric.update(CASES["aopc"].batch(5), CASES["aopc"].batch(4))
    assert as_tuple(metric.compute()) == before


def test_several_values_have_the_intervals_that_each_has_alone():
    values = torch.rand(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # The order of the first column decides the order of the draws.
    values[:, 1:] += values[:, :1]
    together = bootstrap_interval(values, statistic=lambda means: means)
    first = bootstrap_interval(values[:, 0])
    assert together.lower.shape == (3,)
    torch.testing.assert_close(together.value, values.mean(0))
    for ends in ("lower", "upper"):
        torch.testing.assert_close(getattr(together, ends)[0], getattr(first, ends))
    assert (together.lower < together.value).all()
    assert (together.value < together.upper).all()
    nothing = bootstrap_interval(values * float("nan"), statistic=lambda means: means)
    assert nothing.value.shape == (3,)
    assert nothing.lower.isnan().all()
