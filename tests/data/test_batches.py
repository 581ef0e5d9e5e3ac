"""What is done to batches: normalization and mirroring."""

import numpy as np
import torch

from libragrad_lightning.data.batches import mirror_half, normalize


def test_every_picture_of_a_batch_is_mirrored_together():
    mask = torch.rand(64, 8, 8) < 0.5
    keys = ("mask", "ignore", "other_mask")
    labels = {"label": torch.arange(64), "other_label": torch.arange(64)}
    batch = {
        "image": mask[:, None].repeat(1, 3, 1, 1).float(),
        **dict.fromkeys(keys, mask),
        **labels,
    }
    mirrored = mirror_half(batch)
    chosen = (mirrored["mask"] != mask).flatten(1).any(1)
    assert 16 < chosen.sum() < 48
    for key in keys:
        assert torch.equal(mirrored[key], torch.where(chosen[:, None, None], mask.flip(-1), mask))
        assert torch.equal(mirrored["image"].amax(1) > 0, mirrored[key])
    assert all(torch.equal(mirrored[key], value) for key, value in labels.items())
    assert torch.equal(batch["mask"], mask)


def test_bytes_become_normalized_floats():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    expected = (images / 255 - mean) / std
    found = normalize(images, mean, std)
    np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), atol=1e-6)
    assert found.is_contiguous()
    assert found.dtype == torch.float32
    assert torch.equal(normalize(images[1], mean, std), found[1])
