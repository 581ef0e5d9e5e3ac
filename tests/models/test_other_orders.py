"""Orders that change: inside of blocks, between them, from image to image; and partial views."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from libragrad_lightning import explain
from libragrad_lightning.backward import LibraGradError
from libragrad_lightning.models import UnreadableModelError

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
WIDTH = 16


def same(tokens):
    return tokens


class Block(nn.Module):
    def __init__(self, there=same, back=same):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 24), nn.GELU(), nn.Linear(24, WIDTH))
        self.there, self.back = there, back

    def forward(self, z):
        y = self.there(self.norm1(z))
        z = z + self.back(self.attention(y, y, y, need_weights=False)[0])
        return z + self.mlp(self.norm2(z))


class Tokens(nn.Module):
    """Attends without positions; what happens to images and to tokens can be changed."""

    def __init__(self, pixels=same, first=same, between=same, there=same, back=same, last=same):
        super().__init__()
        self.stem, self.cls = nn.Conv2d(3, WIDTH, 8, 8), nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.one, self.two = Block(there, back), Block(there, back)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4)
        self.pixels, self.first, self.between, self.last = pixels, first, between, last

    def forward(self, x):
        patches = self.first(self.stem(self.pixels(x)).flatten(2).transpose(1, 2))
        z = self.one(torch.cat([self.cls.expand(len(x), -1, -1), patches], 1))
        z = self.two(torch.cat([z[:, :1], self.between(z[:, 1:])], 1))
        return self.head(self.norm(self.last(z))[:, 0])


def built(**changes):
    model = Tokens(**changes).double().eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator).double()
    return model


def turned(tokens):
    return tokens.flip(1)


def assert_same(model, methods, images=IMAGES):
    for method in methods:
        found, expected = (explain(m, images, target=1, method=method) for m in (model, built()))
        scale = float(expected.attribution.abs().max())
        pair = found.attribution, expected.attribution
        torch.testing.assert_close(*pair, rtol=0, atol=1e-9 * scale)


def test_patches_turned_between_blocks_are_followed():
    assert_same(built(between=turned), ["fullgrad_plus", "genatt", "attcat", "tokentm"])


def test_patches_turned_inside_of_attention_belong_to_no_token():
    model, twin = built(there=turned, back=turned), built()
    found, expected = (explain(m, IMAGES, target=1, reward="logit") for m in (model, twin))
    assert found.residuals.abs().max() < 1e-12
    totals = [e.image_biases + e.token_biases.sum(1) for e in (found, expected)]
    torch.testing.assert_close(*totals)
    assert not torch.allclose(found.image_biases, expected.image_biases)
    inputs = {"method": "input_x_gradient_plus", "target": 1}
    maps = [explain(m, IMAGES, **inputs).attribution for m in (model, twin)]
    torch.testing.assert_close(*maps, rtol=0, atol=1e-12)
    with pytest.raises(LibraGradError, match=r"In 2 blocks .* another order.*`method`"):
        explain(model, IMAGES, method="genatt")


def test_windows_in_the_batch_have_the_same_map_alone():
    def apart(z):
        patches = z[:, 1:].unflatten(1, (2, 2, 2, 2)).transpose(2, 3).flatten(0, 2)
        return patches.flatten(1, 2)

    def together(z):
        patches = z.view(-1, 2, 2, 2, 2, WIDTH).transpose(2, 3).reshape(-1, 16, WIDTH)
        return F.pad(patches, (0, 0, 1, 0))

    model = built(there=apart, back=together)
    whole = explain(model, IMAGES, target=1)
    for size in (1, 2):
        part = explain(model, IMAGES, target=1, batch_size=size)
        torch.testing.assert_close(part.attribution, whole.attribution, rtol=0, atol=1e-12)


def by_content(tokens):
    order = tokens[..., 0].argsort(1)
    return tokens.gather(1, order[..., None].expand_as(tokens))


def at_random(tokens):
    return tokens[:, torch.randperm(tokens.shape[1])]


@pytest.mark.parametrize("order", [by_content, at_random])
def test_an_order_that_is_another_one_in_other_images_is_refused(order):
    with pytest.raises(UnreadableModelError, match=r"order of tokens .*another|depends on what"):
        explain(built(between=order), IMAGES)
    found = explain(built(between=order), IMAGES, blocks=["one"], reward="logit")
    assert found.residuals.abs().max() < 1e-12
    with pytest.raises(UnreadableModelError, match="lie in no grid"):
        explain(built(first=order), IMAGES)


def test_what_the_first_image_hides_is_there_in_the_others():
    dark = IMAGES.clone()
    dark[0, :, :16] = -1 - dark[0, :, :16].abs()
    found = explain(built(pixels=F.relu), dark, target=1)
    assert found.attribution.shape == (3, 4, 4)
    apart = [explain(built(pixels=F.relu), image, target=1) for image in dark.split(1)]
    expected = torch.cat([e.attribution for e in apart])
    torch.testing.assert_close(found.attribution, expected, rtol=0, atol=1e-12)


def test_a_part_of_the_image_is_no_grid_of_it():
    with pytest.raises(UnreadableModelError, match="lie in no grid of the image"):
        explain(built(pixels=lambda x: x[:, :, :16, :16]), IMAGES)


def test_crops_are_not_added_cell_by_cell():
    model, images = built(), F.pad(IMAGES, (0, 16, 0, 16))

    def crops(x):
        return model(x[:, :, :32, :32]) + model(x[:, :, 16:, 16:])

    with pytest.raises(UnreadableModelError, match=r"No blocks were found|lie in no grid"):
        explain(model, images, forward=crops)


def test_prompts_that_join_behind_the_patches_lie_nowhere():
    prompts = torch.randn(1, 3, WIDTH, generator=torch.Generator().manual_seed(2)).double()

    def joined(patches):
        return torch.cat([patches, prompts.expand(len(patches), -1, -1)], 1)

    found = explain(built(between=joined), IMAGES, target=1, reward="logit")
    assert found.attribution.shape == (3, 4, 4)
    assert found.residuals.abs().max() < 1e-12
