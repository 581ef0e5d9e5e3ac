"""The loop that explains and measures a probe set, on a small model and without a Trainer."""

from dataclasses import replace

import pytest
import timm
import torch
from config_cases import config
from torch import nn

from libragrad_lightning.audit import AuditResult, AuditRun, Learned, ProbeGroup, Samples, merged
from libragrad_lightning.audit.image_scores import MOST_SCORED
from libragrad_lightning.audit.probe_set import fingerprint
from libragrad_lightning.audit.replay import ModelCall
from libragrad_lightning.models import explanation_state

TALL = torch.randn(5, 3, 24, 16, generator=torch.Generator().manual_seed(0))


class Small(nn.Module):
    """A model of images of several sizes; once it is read, there is room for so many of them."""

    def __init__(self, room=100):
        super().__init__()
        torch.manual_seed(0)
        self.net = timm.create_model(
            "vit_tiny_patch16_224",
            num_classes=3,
            img_size=(24, 16),
            patch_size=8,
            embed_dim=8,
            depth=1,
            num_heads=2,
            dynamic_img_size=True,
        ).eval()
        self.room, self.is_read = room, False

    def forward(self, images):
        if self.is_read and len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.net(images)


class Watcher:
    """Writes down what it is told."""

    def __init__(self, module):
        self.module, self.read, self.chunks, self.halved = module, [], [], []

    def model_read(self, model, images):
        self.module.is_read = True
        self.read.append(tuple(images.shape))

    def chunk_explained(self, chunk):
        self.chunks.append(chunk)

    def memory_ran_out(self, size):
        self.halved.append(size)


def group(images, labels, first=0):
    numbers = tuple(range(first, first + len(images)))
    return ProbeGroup(tuple(10 + n for n in numbers), numbers, Samples(images, labels))


LABELS = torch.tensor([0, 1, 2, 0, 1])
CONFIG = config(metrics=["degenerate_rate", "drift_cosine"], batch_size=2)


def audited(groups, module=None, config=CONFIG, previous=AuditResult(), call=None, **learned):  # noqa: B008
    module, scored = module or Small(), learned.pop("scored", MOST_SCORED)
    call = call or ModelCall(lambda images, others: module(images))
    given = {"task": "multiclass", "outputs": 3} | learned
    watcher = Watcher(module)
    sizes = config.batch_size, 0
    run = AuditRun(module, Learned(call, **given), config, previous, watcher, *sizes, scored=scored)
    with explanation_state(module):
        run.add(groups)
        return run, run.found()


def test_images_are_explained_in_parts():
    run, found = audited([group(TALL, LABELS)])
    assert [chunk.numbers for chunk in run.watcher.chunks] == [(0, 1), (2, 3), (4,)]
    assert run.watcher.read == [(1, 3, 24, 16)]
    keys = [(10 + n, -1) for n in range(5)]
    assert found.fingerprints == {k: fingerprint(i) for k, i in zip(keys, TALL, strict=True)}
    assert {name: list(maps) for name, maps in found.maps.items()} == {"plain": keys, "libra": keys}
    assert {m.shape for maps in found.maps.values() for m in maps.values()} == {(3, 2)}
    assert (found.nonfinite, found.peak_memory_gib, found.perturbation) == (0, None, "")
    assert found.uninformative == {"plain": 0, "libra": 0}
    assert found.seconds > 0
    first = run.watcher.chunks[0]
    assert [i.explanation.rules.name for i in first.inputs] == ["plain", "libra"]
    assert torch.equal(first.labels, LABELS[:2])
    torch.testing.assert_close(first.outputs, run.module(TALL[:2]))
    whole = found.maps["libra"]
    alone = audited([group(TALL[3:4], LABELS[3:4])])[1].maps["libra"][10, -1]
    torch.testing.assert_close(whole[13, -1], alone)
    right = (run.module(TALL).argmax(1) == LABELS).float().mean()
    assert run.measurement.values()["accuracy"] == pytest.approx(float(right))


def test_maps_are_compared_with_those_of_the_same_images():
    _, before = audited([group(TALL, LABELS)])
    changed = TALL.clone()
    changed[1] += 1.0
    run, _ = audited([group(changed, LABELS)], previous=before)
    first, second, third = (chunk.inputs[1].previous for chunk in run.watcher.chunks)
    assert torch.equal(first[0], before.maps["libra"][10, -1])
    assert first[1].isnan().all()
    assert torch.equal(second, torch.stack([before.maps["libra"][k, -1] for k in (12, 13)]))
    assert third.shape == (1, 3, 2)


def test_images_of_every_size_have_a_turn():
    wide = torch.randn(2, 3, 16, 32, generator=torch.Generator().manual_seed(1))
    run, found = audited([group(TALL[:3], LABELS[:3]), group(wide, LABELS[:2], first=3)])
    assert [chunk.numbers for chunk in run.watcher.chunks] == [(0, 1), (2,), (3, 4)]
    assert run.watcher.read == [(1, 3, 24, 16), (1, 3, 16, 32)]
    assert found.maps["libra"][13, -1].shape == (2, 4)


def test_a_size_without_anything_to_explain_is_passed_over():
    of_labels = replace(CONFIG, target="label")
    nameless = group(TALL[:2], torch.tensor([-1, -1]))
    run, found = audited([nameless, group(TALL[2:], LABELS[2:], first=2)], config=of_labels)
    assert [chunk.numbers for chunk in run.watcher.chunks] == [(2, 3), (4,)]
    assert list(found.fingerprints) == [(12, -1), (13, -1), (14, -1)]


@pytest.mark.parametrize("room", [1, 2])
def test_parts_are_halved_where_memory_runs_out(room):
    config = replace(CONFIG, batch_size=4)
    run, found = audited([group(TALL, LABELS)], Small(room), config)
    assert run.watcher.halved == ([4, 2] if room == 1 else [4])
    assert run.batch_size == room
    assert [len(chunk.numbers) for chunk in run.watcher.chunks] == [room] * (4 // room) + [1]
    assert len(found.maps["plain"]) == 5


def test_a_single_image_without_room_and_other_errors_end_the_audit():
    with pytest.raises(torch.OutOfMemoryError):
        audited([group(TALL, LABELS)], Small(0))

    def scores(images, others):
        if module.is_read:
            raise ZeroDivisionError
        return module(images)

    module = Small()
    with pytest.raises(ZeroDivisionError):
        audited([group(TALL, LABELS)], module, call=ModelCall(scores))


def test_scores_that_are_no_numbers_are_counted():
    def scores(images, others):
        found = module(images)
        broken = images[:, 0, 0, 0] == TALL[3, 0, 0, 0]
        return torch.where(broken[:, None], torch.nan, found)

    module = Small()
    _, found = audited([group(TALL, LABELS)], module, call=ModelCall(scores))
    assert (found.nonfinite, found.samples) == (1, 4)
    assert found.uninformative == {"plain": 1, "libra": 1}


@pytest.mark.parametrize("needs_others", [True, False])
def test_images_go_with_what_they_have_beside_them(needs_others):
    beside = torch.arange(5.0)[:, None]

    def scores(images, others):
        seen.append(others[0].flatten().tolist())
        return module(images) + others[0] * torch.tensor([0.0, 0.0, 10.0])

    module, seen = Small(), []
    call = ModelCall(scores, "", (beside[:1],), needs_others)
    several = ProbeGroup(tuple(range(5)), tuple(range(5)), Samples(TALL, LABELS, others=(beside,)))
    run, _ = audited([several], module, call=call)
    if needs_others:
        assert [chunk.numbers for chunk in run.watcher.chunks] == [(n,) for n in range(5)]
        expected = module(TALL) + beside * torch.tensor([0.0, 0.0, 10.0])
        torch.testing.assert_close(torch.cat([c.outputs for c in run.watcher.chunks]), expected)
    else:
        assert [chunk.numbers for chunk in run.watcher.chunks] == [(0, 1), (2, 3), (4,)]
    assert {row for rows in seen for row in rows} == (
        {0, 1, 2, 3, 4} if needs_others else {0, 2, 4}
    )


def test_logits_under_deletion_are_there_where_a_metric_asks_for_them():
    asked = replace(CONFIG, metrics=("srg",), levels=(0.5,), perturbation="zero_tokens")
    run, found = audited([group(TALL[:3], LABELS[:3])], config=asked)
    assert found.perturbation == "zero_tokens"
    for inputs in run.watcher.chunks[0].inputs:
        assert inputs.deletion is not None
    values = run.measurement.values()
    assert {key for key in values if key.startswith("srg")} == {"srg/plain", "srg/libra"}


def test_quantities_are_those_that_the_model_returns():
    module = Small()
    call = ModelCall(lambda images, others: nn.functional.softplus(module(images)), "softplus")
    labels, first = torch.rand(5, 3), replace(CONFIG, target=0)
    run, _ = audited([group(TALL, labels)], module, first, call=call, task="regression")
    torch.testing.assert_close(run.watcher.chunks[0].outputs, call.forward(TALL[:2], ()))
    error = (call.forward(TALL, ()).detach() - labels).abs().mean()
    assert run.measurement.values()["mean_absolute_error"] == pytest.approx(float(error))


def test_only_the_first_maps_are_remembered_and_all_are_measured():
    module = Small()
    whole, everything = audited([group(TALL, LABELS)], module)
    call = ModelCall(lambda images, others: module(images))
    learned, watcher = Learned(call, task="multiclass", outputs=3), Watcher(module)
    run = AuditRun(module, learned, CONFIG, AuditResult(), watcher, 2, 0, remembered=3)
    for start in (0, 2, 4):
        part = slice(start, start + 2)
        with explanation_state(module):
            run.add([group(TALL[part], LABELS[part], start)])
    found = run.found()
    first = [(10, -1), (11, -1)]
    assert list(found.fingerprints) == first
    assert {name: list(maps) for name, maps in found.maps.items()} == {
        "plain": first,
        "libra": first,
    }
    for key in first:
        assert torch.equal(found.maps["libra"][key], everything.maps["libra"][key])
    assert (found.forgotten_images, found.forgotten_maps) == (3, 3)
    assert (found.samples, found.explained) == (everything.samples, everything.explained) == (5, 5)
    assert found.uninformative == everything.uninformative
    expected, values = whole.measurement.values(), run.measurement.values()
    assert values == pytest.approx(expected, nan_ok=True)
    both = merged([found, found])
    assert (both.samples, both.explained, both.forgotten_images) == (8, 8, 6)
