"""What is measured of a model is measured once for each size of images, and of few of them."""

import pytest
import timm
import torch
from torch import nn
from unknown_operation import CustomActivation

from libragrad_lightning.models import (
    explanation_state,
    logits_behind,
    logits_of_tokens_alone,
    read_token_model,
)
from libragrad_lightning.models.image_axes import axes_of_batch


class Counted(nn.Module):
    """Remembers how many images it was shown each time."""

    def __init__(self, **changes):
        super().__init__()
        torch.manual_seed(0)
        sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 2, "num_heads": 2}
        self.net = timm.create_model(
            "vit_tiny_patch16_224", num_classes=3, dynamic_img_size=True, **(sizes | changes)
        ).eval()
        self.seen = []

    def forward(self, images):
        self.seen.append(len(images))
        return self.net(images)

    def shown_since(self):
        found, self.seen = self.seen, []
        return found


def images(count, height=16, width=16):
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, height, width, generator=generator)


@pytest.fixture
def counted():
    return Counted()


@pytest.fixture
def model(counted):
    found = read_token_model(counted, images(1))
    counted.shown_since()
    return found


def recorded(model, batch):
    with explanation_state(model.blocks[0]):
        return model.record(batch)


def test_what_was_read_is_not_measured_again(model, counted):
    assert model.grid(images(5)) == (2, 2)
    assert model.prefix(images(5)) == 1
    assert counted.shown_since() == []
    recording = recorded(model, images(3))
    assert counted.shown_since() == [3]
    assert len(recording.image_axes) > 0
    assert all(axis is not None for axis in recording.image_axes.values())


def test_another_size_is_measured_once_with_few_images(model, counted):
    assert model.grid(images(5, 24, 32)) == (3, 4)
    assert 0 < max(counted.shown_since()) < 5
    recorded(model, images(3, 24, 32))
    assert counted.shown_since() == [3, 2]  # where images are, told by one that is shown twice
    recorded(model, images(4, 24, 32))
    assert counted.shown_since() == [4]


def test_what_is_known_stays_known_when_weights_change(model, counted):
    recorded(model, images(3))
    with torch.no_grad():
        for parameter in counted.parameters():
            parameter.mul_(0.5)
    counted.shown_since()
    recorded(model, images(3))
    assert counted.shown_since() == [3]


def test_what_has_no_effect_is_looked_at_again_when_weights_change():
    counted = Counted(init_values=1e-5)
    for block in counted.net.blocks:
        nn.init.zeros_(block.ls1.gamma)
        nn.init.zeros_(block.ls2.gamma)
    model = read_token_model(counted, images(1))
    recorded(model, images(3))
    counted.shown_since()
    recorded(model, images(3))
    assert counted.shown_since() == [3]
    with torch.no_grad():
        for block in counted.net.blocks:
            block.ls1.gamma.fill_(0.5)
            block.ls2.gamma.fill_(0.5)
    recording = recorded(model, images(3))
    assert counted.shown_since() == [3, 2]
    assert all(axis is not None for axis in recording.image_axes.values())
    recorded(model, images(3))
    assert counted.shown_since() == [3]


def test_one_image_is_enough_to_go_on_from_tokens(model, counted):
    batch, rows = images(4), torch.tensor([2, 0])
    assert torch.equal(model.placeholder_images(batch, rows), batch[:1])
    counted.shown_since()
    assert torch.equal(model.placeholder_images(batch[1:], rows), batch[1:2])
    assert counted.shown_since() == []
    tokens = model.tokens(batch)
    torch.testing.assert_close(model.logits_from_tokens(batch[:1], tokens), counted(batch))


def test_models_that_remember_the_size_of_the_batch_are_shown_all_images():
    class Remembering(Counted):
        def forward(self, images):
            return super().forward(images).view(len(images), 3)

    counted = Remembering()
    model = read_token_model(counted, images(1))
    batch, rows = images(4), torch.tensor([2, 0])
    assert torch.equal(model.placeholder_images(batch, rows), batch[rows])


def test_whether_tokens_may_be_dropped_is_looked_at_once(model, counted):
    assert model.can_drop_tokens(images(3))
    counted.shown_since()
    assert model.can_drop_tokens(images(2))
    assert counted.shown_since() == []


def test_going_on_with_some_patches(model, counted):
    batch = images(2)
    tokens = model.tokens(batch)
    whole = torch.arange(4).expand(2, -1)
    torch.testing.assert_close(model.logits_from_patches(batch, tokens, whole), counted(batch))
    some = torch.tensor([[0, 2], [1, 3]])
    kept = torch.stack([t[torch.cat([torch.zeros(1).long(), s + 1])] for t, s in
                        zip(tokens, some, strict=True)])  # fmt: skip
    expected = counted.net.head(counted.net.norm(counted.net.blocks(kept))[:, 0])
    torch.testing.assert_close(model.logits_from_patches(batch, tokens, some), expected)


def test_operations_without_a_rule_keep_no_model_from_being_recorded():
    counted = Counted()
    counted.net.blocks[1].mlp.act = CustomActivation()
    model = read_token_model(counted, images(1))
    for batch in (images(3), images(3, 24, 32)):
        recording = recorded(model, batch)
        assert len(recording.image_axes) > 0
        assert all(axis is not None for axis in recording.image_axes.values())


def test_operations_without_a_rule_keep_batches_from_no_look():
    counted = Counted()
    counted.net.blocks[1].mlp.act = CustomActivation()
    model = read_token_model(counted, images(1))
    with explanation_state(counted):
        recording = model.record_alone(images(3))
    found = axes_of_batch(recording.logits, recording.features[0])
    assert found
    assert all(axis is not None for axis in found.values())


def test_tokens_alone_are_read_out_as_if_there_were_no_other():
    counted = Counted(depth=3)
    model = read_token_model(counted, images(1))
    tokens = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    found = logits_of_tokens_alone(model, images(1), tokens)
    pairs = tokens.flatten(0, 1)[:, None].expand(-1, 2, -1)  # as a class token, and as a patch
    expected = counted.net.head(counted.net.norm(counted.net.blocks[2](pairs))[:, 0])
    torch.testing.assert_close(found, expected.unflatten(0, (2, 5)))


def test_logits_behind_the_last_block(model, counted):
    output = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    expected = counted.net.head(counted.net.norm(output)[:, 0])
    torch.testing.assert_close(logits_behind(model, images(2), output), expected)
