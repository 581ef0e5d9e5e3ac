"""A run that was killed goes on with the curves of the one that was not."""

import warnings

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from audit_cases import Classifier, data, last, loader, probe_ids, quick_audit, trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader, Subset

pytestmark = pytest.mark.rotating


class Certain(Classifier):
    """Without dropout, as Lightning's checkpoints do not hold random streams."""

    def __init__(self):
        super().__init__()
        self.net.head_drop.p = 0.0


class Kill(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise KeyError("killed")


def run_with(path, callback, extra=(), ckpt_path=None, validation=None, epochs=4):
    L.seed_everything(7)
    checkpoint = ModelCheckpoint(path, save_top_k=-1, filename="{epoch}")
    run = trainer(path, [callback, checkpoint, *extra], max_epochs=epochs, logger=False)
    run.fit(Certain(), loader(count=16), validation or loader(count=16), ckpt_path=ckpt_path)
    return run


def curve(callback):
    return [(r.epoch, r.step, r.samples, r.weights, dict(r.values)) for r in callback.history]


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"probe": "stratified", "metrics": ["drift_cosine", "srg"]}, {"probe": [7, 3, 9]}],
    ids=["first", "stratified", "indices"],
)
def test_kill_and_resume_give_the_curve_of_an_undisturbed_run(tmp_path, kwargs):
    whole, killed, resumed = (quick_audit(num_images=0, **kwargs) for _ in range(3))
    run_with(tmp_path / "whole", whole)
    with pytest.raises(KeyError):
        run_with(tmp_path / "killed", killed, [Kill(5)])
    assert len(killed.history) == 2
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="LibraGradAudit")
        run_with(tmp_path / "on", resumed, ckpt_path=tmp_path / "killed" / "epoch=1.ckpt")
    assert curve(resumed) == curve(whole)
    assert "drift_cosine/libra" in resumed.history[2].values
    assert probe_ids(resumed) == probe_ids(whole)


def test_a_probe_set_that_shrank_stays_small_after_a_resume_and_not_in_another_fit(tmp_path):
    arguments = {"num_images": 0, "metrics": ["completeness_error"], "max_overhead": 1e-4}
    first, resumed = (quick_audit(**arguments) for _ in range(2))
    stops = [EarlyStopping("audit/completeness_error/libra", patience=9)]  # asks for a first value
    with pytest.warns(UserWarning, match="explains 1 images in place of 4"):
        run_with(tmp_path / "first", first, stops, epochs=2)
    assert [record.samples for record in first.history] == [1]
    checkpoint = tmp_path / "first" / "epoch=1.ckpt"
    with pytest.warns(UserWarning, match="postpones audits until there is time for one"):
        run = run_with(tmp_path / "on", resumed, stops, ckpt_path=checkpoint)
    assert [record.epoch for record in resumed.history] == [0, 2]
    run.validate(Certain(), loader(count=16), verbose=False)
    assert [record.samples for record in resumed.history] == [1, 1, 4]  # only fits have a limit
    with pytest.warns(UserWarning, match="explains 1 images in place of 4"):
        run_with(tmp_path / "again", resumed, stops, epochs=2)
    assert [record.samples for record in resumed.history] == [1]


def test_a_checkpoint_can_be_loaded_without_trust(tmp_path):
    run_with(tmp_path, quick_audit(num_images=0), epochs=1)
    checkpoint = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)
    (state,) = (s for key, s in checkpoint["callbacks"].items() if "LibraGradAudit" in key)
    assert state.keys() == {"settings", "history", "strips", "max_samples"}
    assert state["history"]["records"][0]["epoch"] == 0
    assert list(state["history"]["last"]["fingerprints"]) == [(i, -1) for i in range(4)]


def test_a_shuffled_loader_cannot_go_on_and_says_so(tmp_path):
    run_with(tmp_path, quick_audit(num_images=0), epochs=1)
    callback = quick_audit(num_images=0)
    with pytest.warns(UserWarning, match="found other images than before.*`shuffle=False`"):
        run_with(
            tmp_path,
            callback,
            ckpt_path=tmp_path / "epoch=0.ckpt",
            validation=loader(shuffle=True, count=48),
            epochs=2,
        )
    assert len(callback.history) == 2


def test_drift_leaves_out_places_that_hold_other_images(tmp_path):
    first, resumed = (quick_audit(num_images=0, metrics=["drift_cosine"]) for _ in range(2))
    run_with(tmp_path, first, epochs=1)
    exchanged = [1, 0, *range(2, 16)]
    with pytest.warns(UserWarning, match="found other images than before in 2 of 4 places"):
        run_with(
            tmp_path,
            resumed,
            ckpt_path=tmp_path / "epoch=0.ckpt",
            validation=DataLoader(Subset(data(16), exchanged), 8),
            epochs=2,
        )
    before, after = (
        torch.stack([last(c)["maps"]["libra"][i, -1].flatten().double() for i in (2, 3)])
        for c in (first, resumed)
    )
    expected = 1 - F.cosine_similarity(before, after).mean()
    found = resumed.history[1].values["drift_cosine/libra"]
    assert found == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"max_samples": 6}, r"max_samples \(4 -> 6\)"),
        ({"target": "label"}, r'target \("predicted" -> "label"\)'),
        ({"levels": (0.7,)}, r"levels \(\[0\.5\] -> \[0\.7\]\)"),
    ],
)
def test_other_settings_are_told_and_begin_anew(tmp_path, other, said):
    run_with(tmp_path, quick_audit(num_images=0), epochs=1)
    callback = quick_audit(num_images=0, **other)
    with pytest.warns(UserWarning, match=f"was resumed with other settings: {said}; its history"):
        run_with(tmp_path, callback, ckpt_path=tmp_path / "epoch=0.ckpt", epochs=3)
    assert [record.epoch for record in callback.history] == [1, 2]
    assert [record.samples for record in callback.history] == [other.get("max_samples", 4)] * 2
    assert "drift_cosine/plain" not in callback.history[0].values
    assert "drift_cosine/plain" in callback.history[1].values


def test_drift_is_the_distance_to_the_maps_before(tmp_path):
    callback = quick_audit(num_images=0, metrics=["drift_cosine"])
    seen = []

    class Look(Callback):
        def on_validation_end(self, trainer, pl_module):
            maps = last(callback)["maps"]
            if maps:
                seen.append(torch.stack(list(maps["libra"].values())))

    run_with(tmp_path, callback, [Look()], epochs=2)
    first, second = (maps.flatten(1).double() for maps in seen[-2:])
    expected = 1 - F.cosine_similarity(first, second).mean()
    found = callback.history[1].values["drift_cosine/libra"]
    assert found == pytest.approx(float(expected), abs=1e-6)
    assert found > 1e-6
    assert "drift_cosine/libra" not in callback.history[0].values


def test_a_second_fit_with_more_epochs_goes_on(tmp_path):
    whole, twice = (quick_audit(num_images=0) for _ in range(2))
    run_with(tmp_path / "whole", whole)
    L.seed_everything(7)
    checkpoint = ModelCheckpoint(tmp_path, save_top_k=-1)
    run = trainer(tmp_path, [twice, checkpoint], max_epochs=2, logger=False)
    module, training = Certain(), loader(count=16)
    run.fit(module, training, loader(count=16))
    run.fit_loop.max_epochs = 4
    run.fit(module, training, loader(count=16))
    assert [r.epoch for r in twice.history] == [r.epoch for r in whole.history] == [0, 1, 2, 3]
    assert "drift_cosine/libra" in twice.history[2].values
    assert "drift_cosine/libra" not in twice.history[0].values
