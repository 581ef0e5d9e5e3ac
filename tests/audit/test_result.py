"""What audits found, of all processes together."""

import torch

from libragrad_lightning.audit import AuditResult, Failure, merged


def part(*places):
    """What a process found at some places: prints of ten more, maps of their numbers."""
    keys = [(place, -1) for place in places]
    maps = {key: torch.full((1, 2), float(key[0])) for key in keys}
    return AuditResult({key: 10 + key[0] for key in keys}, {"libra": maps})


def previous(result, places, others=()):
    keys, others = ([(place, -1) for place in of] for of in (places, others))
    found = result.previous_maps("libra", keys, others, (1, 2))
    return None if found is None else found[:, 0, 0].nan_to_num(-1).tolist()


def test_maps_are_found_by_their_image():
    result = merged([part(0, 2), AuditResult(), part(1, 3)])
    assert previous(result, [3, 5, 2]) == [3, -1, 2]
    assert previous(result, [2, 1], others=[2]) == [-1, 1]
    assert result.changed({(0, -1): 10, (1, -1): 99, (7, -1): 1}) == {(1, -1)}
    assert previous(result, [7]) is None
    assert previous(AuditResult(), [0]) is None
    assert result.previous_maps("plain", [(0, -1)], (), (1, 2)) is None


def test_maps_of_another_size_are_not_taken_for_those_before():
    result = merged([part(0), AuditResult(maps={"libra": {(1, -1): torch.zeros(3, 3)}})])
    assert previous(result, [0, 1]) == [0, -1]
    assert previous(result, [1]) is None


def test_labels_of_an_image_have_maps_of_their_own():
    maps = {(4, label): torch.full((1, 2), float(label)) for label in (0, 2)}
    result = AuditResult({(4, 0): 7, (4, 2): 7}, {"libra": maps})
    found = result.previous_maps("libra", [(4, 2), (4, 1)], (), (1, 2))
    assert found[:, 0, 0].nan_to_num(-1).tolist() == [2, -1]
    assert result.samples == 1


def test_nothing_is_nothing():
    assert merged([AuditResult()]) == AuditResult()


def test_what_processes_found_is_added_up():
    first = AuditResult(
        {(0, -1): 1},
        {"plain": {}, "libra": {}},
        {"plain": 2},
        1,
        "",
        2.0,
        0.25,
        (Failure(0, "one"),),
    )
    second = AuditResult(
        {(1, -1): 2},
        {"libra": {}},
        {"plain": 1, "libra": 4},
        2,
        "zero_tokens",
        1.0,
        0.5,
        (Failure(1, "two", True),),
    )
    found = merged([first, second])
    assert found.fingerprints == {(0, -1): 1, (1, -1): 2}
    assert found.uninformative == {"plain": 3, "libra": 4}
    assert (found.nonfinite, found.perturbation, found.seconds) == (3, "zero_tokens", 2.0)
    assert found.peak_memory_gib == 0.5
    assert merged([first, AuditResult()]).peak_memory_gib == 0.25
    rounded = [AuditResult(deletion_rounding=r) for r in (None, 0.5, 0.25)]
    assert (found.deletion_rounding, merged(rounded).deletion_rounding) == (None, 0.5)
    assert found.failures == (Failure(0, "one"), Failure(1, "two", True))
    assert list(found.maps) == ["plain", "libra"]
