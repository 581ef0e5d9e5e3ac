"""Tokens may be left out only where the blocks do not know which neighbors a token has."""

import pytest
import torch
from torch import nn

from libragrad_lightning.models import read_token_model

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()


class Ring(nn.Module):
    """Blocks that take any number of tokens; the last is a neighbor of the first."""

    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.mix = nn.Conv1d(8, 8, width, padding=width // 2, padding_mode="circular")
            self.dense = nn.Linear(8, 8)

        def forward(self, x):
            x = x + self.mix(x.transpose(1, 2)).relu().transpose(1, 2)
            return x + self.dense(x).relu()

    def __init__(self, width):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.blocks = nn.Sequential(self.Block(width), self.Block(width))
        self.head = nn.Linear(8, 5)

    def forward(self, images):
        return self.head(self.blocks(self.patches(images).flatten(2).transpose(1, 2)).mean(1))


@pytest.mark.parametrize(("width", "expected"), [(1, True), (3, False)])
def test_blocks_that_mix_neighbors_need_all_tokens(width, expected):
    torch.manual_seed(0)
    model = Ring(width).double().eval()
    read = read_token_model(model, IMAGES)
    assert read.can_drop_tokens(IMAGES) is expected
