import math
import pickle

import matplotlib as mpl
import pytest
import torch
from metric_cases import CASES, SPOILABLE, Case, draw, split
from torchmetrics import MetricCollection

from libragrad_lightning import metrics
from libragrad_lightning.metrics.functional import precision
from libragrad_lightning.metrics.sample_mean import SampleMean

torch.set_num_threads(1)
every_metric = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
every_spoilable_metric = pytest.mark.parametrize("case", SPOILABLE.values(), ids=SPOILABLE.keys())


def filled(case: Case, *seeds: int) -> SampleMean:
    metric = case.make()
    for seed in seeds:
        metric.update(**case.batch(5, seed))
    return metric


def test_every_exported_metric_has_a_case():
    tested_apart = {"CocoMaskAP", "ConfidenceInterval", "PairedDifference"}
    tested = {type(case.make()).__name__ for case in CASES.values()}
    assert tested | tested_apart == set(metrics.__all__)


@every_metric
def test_class_attributes(case):
    metric = case.make()
    assert metric.higher_is_better is case.higher_is_better
    assert metric.is_differentiable is False
    assert metric.full_state_update is False


SHARES = (
    "accuracy accuracy_drop segmentation_ap max_f1 mask_iou pixel_accuracy pointing_game "
    "energy_inside target_share degenerate_maps rank_accuracy average_drop average_gain "
    "average_increase"
).split()
SIGNED = "aopc saco mu_fidelity srg cosine rank_correlation ssim".split()
SIGNED += ["class_discrimination", "target_discrimination"]
ERRORS = ["completeness", "relative_completeness", "infidelity", "max_sensitivity"]


def test_plots_reach_from_the_least_to_the_greatest_possible_value():
    metrics_by_name = {name: case.make() for name, case in CASES.items()}
    bounds = {name: (m.plot_lower_bound, m.plot_upper_bound) for name, m in metrics_by_name.items()}
    expected = dict.fromkeys(SHARES, (0, 1)) | dict.fromkeys(SIGNED, (-1, 1))
    expected |= dict.fromkeys(ERRORS, (0, None))
    assert bounds == dict.fromkeys(CASES, (None, None)) | expected
    ranking = metrics.SymmetricRelevanceGain(4, score="logit")
    assert (ranking.plot_lower_bound, ranking.plot_upper_bound) == (None, None)
    assert (metrics.CocoMaskAP.plot_lower_bound, metrics.CocoMaskAP.plot_upper_bound) == (0, 1)
    assert metrics.CocoMaskAP.higher_is_better


@every_metric
def test_states_are_sums_that_do_not_grow(case):
    fresh, used = case.make(), filled(case, 0, 1, 2)
    assert {function.__name__ for function in used._reductions.values()} == {"dim_zero_sum"}
    for name in used._defaults:
        assert getattr(used, name).shape == getattr(fresh, name).shape
        assert getattr(used, name).dtype == getattr(fresh, name).dtype
    assert used.num_samples == 15


@every_metric
def test_chunks_equal_the_whole(case):
    batch = case.batch(7)
    chunked, whole = case.make(), case.make()
    for chunk in split(batch, 1, 4, 2):
        chunked.update(**chunk)
    whole.update(**batch)
    torch.testing.assert_close(chunked.compute(), whole.compute(), rtol=0, atol=1e-12)


@every_metric
def test_forward_returns_the_value_of_the_batch_and_accumulates(case):
    metric = case.make()
    for seed in (0, 1):
        assert torch.equal(metric(**case.batch(5, seed)), filled(case, seed).compute())
    torch.testing.assert_close(metric.compute(), filled(case, 0, 1).compute(), rtol=0, atol=1e-12)


@every_metric
@pytest.mark.parametrize(
    "copy",
    [lambda metric: metric.clone(), lambda metric: pickle.loads(pickle.dumps(metric))],
    ids=["clone", "pickle"],
)
def test_copies_carry_the_state_and_are_independent(case, copy):
    metric = filled(case, 0)
    duplicate = copy(metric)
    duplicate.update(**case.batch(5, 1))
    assert torch.equal(metric.compute(), filled(case, 0).compute())
    assert torch.equal(duplicate.compute(), filled(case, 0, 1).compute())


@every_spoilable_metric
def test_reset_forgets(case):
    metric = filled(case, 0)
    metric.update(**case.spoilt(3))
    metric.reset()
    assert metric.num_invalid == 0
    metric.update(**case.batch(5, 1))
    assert torch.equal(metric.compute(), filled(case, 1).compute())


@every_metric
def test_state_dict_is_empty_until_persistent_and_then_restores(case):
    metric = filled(case, 0)
    assert not metric.state_dict()
    metric.persistent(True)
    restored = case.make()
    restored.persistent(True)
    restored.load_state_dict(metric.state_dict())
    restored.update(**case.batch(5, 1))
    assert torch.equal(restored.compute(), filled(case, 0, 1).compute())


@every_metric
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_input_is_accumulated_in_float64(case, dtype):
    low = {k: v.to(dtype) if v.is_floating_point() else v for k, v in case.batch(7).items()}
    wide = {k: v.double() if v.is_floating_point() else v for k, v in low.items()}
    metric, reference = case.make(), case.make()
    metric.update(**low)
    reference.update(**wide)
    assert metric.compute().dtype == torch.float64
    torch.testing.assert_close(metric.compute(), reference.compute(), rtol=0, atol=1e-12)


@every_metric
def test_converting_the_module_does_not_narrow_the_states(case):
    metric = filled(case, 0)
    metric.to(torch.bfloat16).half()
    metric.update(**case.batch(5, 1))
    assert torch.equal(metric.compute(), filled(case, 0, 1).compute())


@pytest.mark.gpu
@every_metric
def test_devices_agree(case):
    on_device, reference = case.make().to("cuda"), case.make()
    for seed in (0, 1):
        batch = case.batch(5, seed)
        on_device.update(**{name: value.cuda() for name, value in batch.items()})
        reference.update(**batch)
    found = on_device.compute()
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), reference.compute(), rtol=0, atol=1e-12)


@every_metric
def test_states_narrow_on_a_device_without_float64(case, monkeypatch):
    monkeypatch.setattr(precision, "DEVICES_WITHOUT_FLOAT64", {"meta"})
    metric = case.make().to("meta")
    total = getattr(metric, metric.total_name)
    assert (total.device.type, total.dtype) == ("meta", torch.float32)
    assert (metric.num_samples.device.type, metric.num_samples.dtype) == ("meta", torch.int64)


@every_spoilable_metric
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_invalid_samples_are_counted_and_left_out(case, value):
    metric, reference = case.make(), case.make()
    metric.update(**case.spoilt(4, value))
    reference.update(**split(case.batch(4), 1, 3)[1])
    assert (metric.num_samples, metric.num_invalid) == (3, 1)
    torch.testing.assert_close(metric.compute(), reference.compute(), rtol=0, atol=1e-12)


@every_spoilable_metric
def test_no_valid_sample_gives_nan(case):
    metric = case.make()
    metric.update(**case.spoilt(1))
    assert metric.compute().isnan().all()
    metric.reset()
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert metric.compute().isnan().all()


def test_collection_equals_the_metrics_apart():
    collection = MetricCollection({name: case.make() for name, case in CASES.items()})
    # The first batch holds no valid sample, so that every state is equal when groups are formed.
    collection.update(
        **{k: v * math.nan if v.is_floating_point() else v for k, v in draw(2).items()}
    )
    for seed in (0, 1):
        collection.update(**draw(5, seed))
    values = collection.compute()
    assert set(values) == set(CASES)
    for name, case in SPOILABLE.items():
        torch.testing.assert_close(values[name], filled(case, 0, 1).compute(), rtol=0, atol=1e-12)
    assert values["degenerate_maps"].item() == pytest.approx(2 / 12)


@every_metric
def test_plot_draws_within_the_bounds(case, monkeypatch):
    monkeypatch.setitem(mpl.rcParams, "backend", "agg")
    metric = filled(case, 0)
    figure, axes = metric.plot()
    (line,) = axes.get_lines()[:1]
    assert list(line.get_ydata()) == pytest.approx(metric.compute().flatten().tolist())
    mpl.pyplot.close(figure)


@pytest.mark.parametrize(
    "name", ["accuracy", "accuracy_drop", "aopc", "log_odds", "relative_drop", "srg"]
)
def test_mean_of_the_curve_is_the_value(name):
    metric = filled(CASES[name], 0, 1)
    assert metric.curve().shape == (metric.num_levels,)
    torch.testing.assert_close(metric.curve().mean(), metric.compute(), rtol=0, atol=1e-12)
