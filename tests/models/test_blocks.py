"""Where blocks begin, and where their first residual connection ends."""

import torch
from torch import nn

from libragrad_lightning.models import read_token_model

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()


class Halve(nn.Module):
    """Keeps nothing for the backward pass, so that its input may be overwritten."""

    def forward(self, x):
        return x / 2


class Stem(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 8, 8, 8), nn.LayerNorm(8)

    def forward(self, images):
        return self.norm(self.patches(images).flatten(2).transpose(1, 2))


class Block(nn.Module):
    def __init__(self, in_place):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp, self.in_place = nn.Sequential(Halve(), nn.Linear(8, 8), nn.GELU()), in_place

    def forward(self, x):
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        if not self.in_place:
            return x + self.mlp(x)
        x += self.mlp(x)
        return x


class Network(nn.Module):
    """A transformer whose stem ends with a norm of its own."""

    def __init__(self, *in_place):
        super().__init__()
        self.stem = Stem()
        self.blocks = nn.Sequential(*map(Block, in_place))
        self.head = nn.Linear(8, 5)

    def forward(self, images):
        return self.head(self.blocks(self.stem(images)).mean(1))


def read(*in_place):
    torch.manual_seed(0)
    model = Network(*in_place).double().eval()
    return model, read_token_model(model, IMAGES)


def test_features_that_are_overwritten_are_not_told_as_those_behind_the_attention():
    model, found = read(False, True, False)
    assert found.blocks == tuple(model.blocks)
    assert [level.mid_residuals is None for level in found.levels] == [False, True, False]
    points = [
        level.mid_residuals[0].module for level in found.levels if level.mid_residuals is not None
    ]
    assert points == [model.blocks[0].mlp[0], model.blocks[2].mlp[0]]


def test_a_norm_of_the_stem_lies_before_the_tokens():
    model, found = read(False, False)
    assert found.levels[0].points[0].module is model.blocks[0]
    assert torch.equal(found.tokens(IMAGES), model.stem(IMAGES))
