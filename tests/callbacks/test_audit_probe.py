"""The audit explains the images that are asked for."""

import pytest
from audit_cases import Classifier, data, last, loader, probe_ids, quick_audit, trainer

from libragrad_lightning.audit.probe_set import fingerprint


@pytest.mark.parametrize(
    ("probe", "expected"), [("first", [0, 1, 2, 3]), ([9, 2], [9, 2]), ("stratified", None)]
)
def test_the_audit_explains_the_images_that_are_asked_for(tmp_path, probe, expected):
    callback = quick_audit(probe=probe, num_images=0)
    run = trainer(tmp_path, [callback], logger=False, max_epochs=1, enable_checkpointing=False)
    run.fit(Classifier(), loader(count=16), loader(count=16))
    found = probe_ids(callback)
    images, labels, _ = data(16).tensors
    if expected is None:
        assert {int(label) for label in labels[found]} == {int(label) for label in labels}
    else:
        assert found == expected
    prints = [fingerprint(image) for image in images[found]]
    assert list(last(callback)["fingerprints"].values()) == prints


def test_places_that_the_loader_does_not_have(tmp_path):
    callback = quick_audit(probe=[3, 99], num_images=0)
    run = trainer(tmp_path, [callback], logger=False, max_epochs=1, enable_checkpointing=False)
    with pytest.warns(UserWarning, match="found 1 of the 2 images that `probe` names"):
        run.fit(Classifier(), loader(count=16), loader(count=16))
    assert callback.history[0].samples == 1
