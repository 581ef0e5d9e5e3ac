"""Tokens lie where the reading of a model says, as an independent oracle sees it."""

from pathlib import Path

import pytest
import torch

from libragrad_lightning.models import Axes, FeatureView
from place_measurement import PlaceRow, measure
from place_oracle import judge, pixels, probed_cells
from zoo_rows import read

pytestmark = pytest.mark.rotating

LINES = """
layouts tokens:class-patches 32x32
layouts tokens:class-4-patches 32x48
layouts tokens:first-class-second 32x48
layouts tokens:patches-4-class 32x32
layouts prompts:10 32x32
layouts no-class-token 32x48
layouts order:by_column 32x48
layouts order:to_and_fro,registers-last 32x32
layouts Hilbert-curve 32x32
layouts sequence-first 32x48
layouts packed 32x32
layouts mirror,image-alone 32x48
layouts mirror,two-passes 32x32
layouts latents:16 32x32
layouts channels-last,wide 32x64
layouts channels-last,tie,square 32x32
layouts turned,high 48x32
layouts U-shape,square 32x32
layouts U-shape,tokens,wide 32x64
layouts overlapping,7-by-4 32x48
layouts borders-cropped,14 40x40
timm test_vit 64x64
timm test_resnet 64x64
timm test_mambaout 64x64
transformers Levit 64x64
transformers MobileViT 64x64
vit-pytorch vit 32x48
vit-pytorch simple_vit_with_register_tokens 32x48
vit-pytorch simple_uvit-depth=4 32x32
vit-pytorch cct-1 64x96
vit-pytorch na_vit 32x32
vit-pytorch cvt 64x64
x-transformers registers 32x32
transformers ViT 64x96
transformers Swin-4 64x64
transformers Dinov2WithRegisters-4 64x64
transformers YolosModel 64x64
transformers Segformer 64x96
open_clip vit 64x64
open_clip resnet 64x64
torchvision swin-16 64x64
"""
CHEAP = [line for line in LINES.splitlines() if line]
KNOWN = {row.name: row for row in read(Path(__file__).parents[2] / "docs" / "places.csv", PlaceRow)}


def cases():
    for key in CHEAP:
        yield pytest.param(key, id=key)
    for key in KNOWN:
        if key not in CHEAP:
            yield pytest.param(key, marks=pytest.mark.slow, id=key)


@pytest.mark.parametrize("key", list(cases()))
def test_tokens_are_where_the_page_says(key):
    row, known = measure(key), KNOWN[key]
    assert (row.verdict, row.unexplained) == (known.verdict, known.unexplained), row.reason
    if row.residual is not None:
        assert row.residual < max(1e-9, 10 * known.residual)
        assert row.batch < max(1e-11, 10 * known.batch)


BORDERS = {"layouts padded,14 60x44", "layouts borders-cropped,16 60x60"}
"""Cells are spread over the whole image, and what a stem pads or crops of it is not."""


def test_no_model_has_a_map_in_the_wrong_places():
    wrong = {key for key, row in KNOWN.items() if row.verdict in ("MISPLACED", "foreign error")}
    assert wrong <= BORDERS


def view(prefix=0):
    return FeatureView(Axes.TOKENS, (4, 4), prefix)


def judged(moves, prefix=0, first=True):
    return judge(moves, view(prefix), probed_cells((4, 4), 16), first, whole=True)


def test_the_oracle_tells_a_shift_from_places_that_are_right():
    right = torch.eye(16)
    assert judged(right).good
    assert judged(right).alone
    assert judged(right.roll(1, dims=1)).wrong
    assert judged(right.view(16, 4, 4).transpose(1, 2).flatten(1)).wrong
    assert judged(torch.cat([torch.zeros(16, 1), right], dim=1), prefix=1).good


def test_the_oracle_sees_patches_among_the_tokens_that_are_none():
    last = torch.cat([torch.eye(16), torch.zeros(16, 2)], dim=1)
    assert judged(last, prefix=2).wrong
    sees_all = torch.cat([torch.ones(16, 1), torch.eye(16)], dim=1)
    assert judged(sees_all, prefix=1).good


def test_the_oracle_does_not_decide_where_all_tokens_move():
    spread = torch.rand(16, 16, generator=torch.Generator().manual_seed(0)) + 1
    assert judged(spread, first=False).unclear


def test_the_oracle_sees_a_change_that_reaches_another_patch():
    leaking = torch.eye(16)
    leaking[3, 9] = 0.1
    assert judged(leaking).wrong


def test_cells_cover_the_image():
    covered = [i for cell in range(3) for i in range(40)[pixels(cell, 3, 40)]]
    assert covered == list(range(40))
