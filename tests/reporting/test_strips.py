"""A strip has the first and the last audit, and evenly chosen ones between them."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from libragrad_lightning.heatmaps import StripMoment
from libragrad_lightning.reporting import DrawnPanel, Strips, strips


@pytest.fixture
def shown(monkeypatch):
    """What strips are drawn of."""
    found = []

    def draw(image, moments, caption):
        found.append((image, list(moments), caption))
        return torch.zeros(3, 1, 1)

    monkeypatch.setattr(strips, "strip", draw)
    return found


def panel(value, key=(0, -1), size=4):
    maps = {name: torch.full((size, size), float(value)) for name in ("plain", "libra")}
    moment = StripMoment(f"bee {value}", maps)
    picture = torch.zeros(3, 9, 9)
    return DrawnPanel(key, "image_000/ant", picture, torch.rand(3, 8, 8), moment, "label ant")


def record(epoch, step=None, weights="current"):
    return SimpleNamespace(epoch=epoch, step=10 * epoch if step is None else step, weights=weights)


def drawn_of(count):
    found = Strips()
    for epoch in range(count):
        found.add({0: panel(epoch)}, record(epoch))
    return found


@pytest.mark.parametrize("count", [2, 3, 8, 9, 16, 17, 30, 33, 100, 1001])
def test_the_first_and_the_last_audit_are_always_there(shown, count):
    assert list(drawn_of(count).drawn()) == ["strip_000/ant"]
    ((_, moments, caption),) = shown
    epochs = [int(moment.title.partition("\n")[0].removeprefix("epoch ")) for moment in moments]
    assert (epochs[0], epochs[-1], caption) == (0, count - 1, "label ant")
    assert len(epochs) == min(count, 8)
    gaps = [b - a for a, b in pairwise(epochs)]
    assert min(gaps) > 0
    assert max(gaps) <= 2.5 * (count - 1) / (len(epochs) - 1)
    for epoch, moment in zip(epochs, moments, strict=True):
        assert moment.title.endswith(f"\nbee {epoch}")
        assert all((found == epoch).all() for found in moment.maps.values())


def test_little_is_kept_of_many_audits_and_of_large_maps():
    found = drawn_of(1000)
    kept = found.state_dict()["images"][0]["kept"]
    assert 8 <= len(kept) <= 17
    large = Strips()
    large.add({0: panel(1, size=112)}, record(0))
    (moment,) = large.state_dict()["images"][0]["kept"]
    assert moment["maps"]["libra"].shape == (28, 28)
    assert (moment["maps"]["libra"] == 1).all()


def test_one_audit_is_no_strip_and_another_image_begins_anew(shown):
    found = drawn_of(1)
    assert found.drawn() == {}
    found.add({0: panel(1, key=(5, -1))}, record(1))
    assert found.drawn() == {}
    found.begin_anew()
    found.add({0: panel(2)}, record(2))
    found.add({0: panel(3)}, record(3))
    assert len(found.drawn()) == 1
    assert len(shown[0][1]) == 2


def test_audits_within_an_epoch_are_told_by_their_steps_and_special_ones_by_name(shown):
    found = Strips()
    for epoch, step, weights in ((0, 0, "initial"), (0, 5, "current"), (0, 9, "final")):
        found.add({0: panel(step)}, record(epoch, step, weights))
    found.drawn()
    titles = [moment.title.partition("\n")[0] for moment in shown[0][1]]
    assert titles == ["start", "step 5", "end"]


def test_a_strip_goes_on_after_a_checkpoint(shown, tmp_path):
    torch.save(drawn_of(40).state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = Strips()
    resumed.load_state_dict(state)
    assert resumed.drawn() == {}  # the image comes with the next audit
    resumed.add({0: panel(40)}, record(40))
    resumed.drawn()
    drawn_of(41).drawn()
    (_, moments, _), (_, expected, _) = shown
    assert [m.title for m in moments] == [m.title for m in expected]
    for one, other in zip(moments, expected, strict=True):
        assert all(torch.equal(one.maps[name], other.maps[name]) for name in one.maps)
