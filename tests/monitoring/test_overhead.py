"""How much of an epoch audits take, and how many images and pictures they may have."""

import math
from contextlib import suppress

import pytest

from libragrad_lightning.audit import TimeBudget
from libragrad_lightning.monitoring import Overhead
from libragrad_lightning.monitoring.overhead import Lack


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def passes(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def audited(overhead, clock, image=0.1, picture=0.5, rest=0.2, most=64, pictures=8):
    """Run an audit in which everything takes its time; return how many images it had."""
    with overhead.counting():
        overhead.begin_audit()
        clock.passes(rest)
        room = overhead.pictures()
        drawn = pictures if room is None else min(room, pictures)
        budget = overhead.budget(drawn)
        left = most if overhead.max_samples is None else overhead.max_samples
        while left and (count := min(left, budget.images_at_once(32))):
            clock.passes(count * image)
            budget.took(count, count * image)
            left -= count
        clock.passes(drawn * picture)
        overhead.settle(budget, drawn, drawn * picture)
    return budget.images


@pytest.mark.parametrize("epoch", [20.0, 60.0, 150.0, 1e4])
@pytest.mark.parametrize("image", [0.01, 0.1, 0.3])
def test_hooks_stay_within_the_limit_from_the_first_epoch_on(clock, epoch, image):
    overhead = Overhead(0.05)
    for _ in range(4):
        overhead.begin_epoch()
        clock.passes(epoch)
        begin = clock.now
        images = audited(overhead, clock, image, picture=0.05)
        assert images >= 1
        # One image goes in any case, and a first picture may be slower than was thought.
        assert clock.now - begin <= 0.05 * epoch + 1e-9 or images == 1
        overhead.keep_within(8, 64, images)


def test_what_is_fixed_is_told_apart_from_what_images_take(clock):
    overhead = Overhead(0.05)
    overhead.begin_epoch()
    clock.passes(200.0)
    audited(overhead, clock, image=0.125, picture=0.0625, rest=2.0)
    # 0.9 * 0.05 * 200 s, less 2 s for what is fixed, and 8 pictures.
    assert overhead.affordable(8) == math.floor((9.0 - 2.0 - 0.5) / 0.125) == 52
    assert overhead.affordable(0) == 56
    clock.passes(200.0)
    audited(overhead, clock, image=0.125, picture=0.0625, rest=2.0)
    assert overhead.affordable(0) == 56  # two audits in twice the time


def test_many_pictures_take_half_of_the_room_at_most(clock):
    overhead = Overhead(0.1)
    overhead.begin_epoch()
    clock.passes(21.0)
    assert overhead.pictures() == 5  # a quarter of 2.1 s, at 0.1 s each until that is known
    with overhead.counting():
        clock.passes(0.8)
        assert overhead.pictures() == 3
        assert overhead.has_room
        clock.passes(2.1)
        assert not overhead.has_room
        assert overhead.pictures() == 0
    assert Overhead(None).pictures() is None
    assert Overhead(None).has_room


def test_time_counts_once_however_often_it_is_entered(clock):
    overhead = Overhead(0.05)
    with overhead.counting():
        clock.passes(5.0)
    overhead.begin_audit()
    with overhead.counting():
        clock.passes(1.0)
        with overhead.counting():
            clock.passes(2.0)
            assert overhead.seconds == 3.0
    clock.passes(7.0)
    assert overhead.seconds == 3.0
    with suppress(KeyError), overhead.counting():
        clock.passes(1.0)
        raise KeyError
    assert overhead.seconds == 4.0
    with overhead.counting():
        clock.passes(1.0)
        overhead.begin_audit()
        clock.passes(0.5)
        assert overhead.seconds == 0.5
    assert overhead.seconds == 0.5


def test_images_double_while_there_is_time(clock):
    budget, counts = TimeBudget(clock.now + 12.5), []
    while count := budget.images_at_once(16):
        counts.append(count)
        clock.passes(0.25 * count)
        budget.took(count, 0.25 * count)
    assert counts == [1, 2, 4, 8, 16, 16, 3]
    assert (budget.images, budget.seconds) == (50, 12.5)
    assert TimeBudget().images_at_once(16) == 16
    late = TimeBudget(clock.now - 1.0)
    assert late.images_at_once(16) == 1
    late.took(1, 0.2)
    assert late.images_at_once(16) == 0


@pytest.mark.parametrize(
    ("seconds", "samples", "allowed", "chosen"),
    [
        (100.0, 64, None, None),  # there is time for all
        (100.0, 48, 48, None),
        (3.0, 64, None, 11),
        (3.0, 11, 11, 11),
        (4.0, 11, 11, 11),  # not for twice as many
        (6.0, 11, 11, 25),
        (0.1, 64, None, 1),
    ],
)
def test_how_many_images_are_kept(clock, seconds, samples, allowed, chosen):
    overhead = Overhead(0.5)
    overhead.allow(allowed)
    overhead.begin_epoch()
    clock.passes(seconds)
    overhead.settle(TimeBudget(images=10, seconds=1.0), 0, 0.0)
    said = overhead.keep_within(0, 64, samples)
    expected = min(64, max(1, math.floor(0.9 * 0.5 * seconds / 0.1)))
    assert overhead.max_samples == (chosen if chosen in (None, samples) else expected)
    assert bool(said) == (allowed != overhead.max_samples)
    if said:
        assert f"explains {overhead.max_samples or 64} images in place of {allowed or 64}" in said
        assert "larger `max_overhead` than 0.5" in said


def test_without_a_limit_or_an_epoch_everything_is_allowed(clock):
    overhead = Overhead(None)
    assert not overhead.is_limited
    overhead.begin_epoch()
    assert audited(overhead, clock) == 64
    assert overhead.keep_within(8, 64, 64) == ""
    limited = Overhead(0.05)
    assert limited.is_limited
    assert audited(limited, clock) == 64  # before the first epoch
    limited.begin_epoch()
    assert audited(limited, clock) == 1
    limited.end_epoch()
    assert audited(limited, clock) == 64


def test_time_that_epochs_leave_is_saved_for_a_postponed_audit(clock):
    overhead, needed = Overhead(0.05), []
    assert overhead.lacks() is None  # outside of epochs
    overhead.expect(0.5)
    for _ in range(5):
        overhead.begin_epoch()
        with overhead.counting():
            clock.passes(0.03125)
        clock.passes(4.0)
        lack = overhead.lacks()
        needed.append(lack and (lack.needed, round(lack.left, 6)))
        if lack:
            overhead.postpone()
        else:
            assert audited(overhead, clock, image=0.25, rest=0.0625, pictures=0) == 1
        overhead.end_epoch()
    # 0.05 * 4 s less 0.03125 s an epoch; then, one audit takes 0.0625 s and 0.25 s.
    assert needed == [(0.5, 0.16875), (0.5, 0.3375), None, (0.3125, 0.16875), None]


def test_what_an_audited_epoch_leaves_is_not_saved(clock):
    overhead = Overhead(0.05)
    overhead.begin_epoch()
    clock.passes(200.0)
    assert audited(overhead, clock, most=1, image=1.0, rest=0.25, pictures=0) == 1
    overhead.end_epoch()
    overhead.begin_epoch()
    clock.passes(4.0)
    assert overhead.lacks() == Lack(needed=1.25, left=0.2)
    overhead.end_epoch()  # nothing was due in it
    overhead.begin_epoch()
    clock.passes(20.0)
    assert overhead.lacks() == Lack(needed=1.25, left=1.0)
    assert Overhead(None).lacks() is None
