"""Hidden pixels against a dense system written down pixel by pixel."""

import numpy as np
import pytest
import torch
from test_deletion import model_of

from libragrad_lightning.models import read_token_model
from libragrad_lightning.perturbation import (
    PERTURBATIONS,
    ImputePixels,
    deletion_logits,
    linear_imputation,
)

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
SCORES = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1))
WEIGHTS = {(i, j): 1 / 12 if i and j else 1 / 6 for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j}


def dense(image, visible):
    """Every hidden pixel is the mean of the neighbors that it has, by one system of equations."""
    _, height, width = image.shape
    hidden = [(i, j) for i in range(height) for j in range(width) if not visible[i, j]]
    system, right = np.zeros((len(hidden), len(hidden))), np.zeros((len(hidden), len(image)))
    for row, (i, j) in enumerate(hidden):
        for (down, across), weight in WEIGHTS.items():
            other = (i + down, j + across)
            if not (0 <= other[0] < height and 0 <= other[1] < width):
                continue
            system[row, row] += weight
            if visible[other]:
                right[row] += weight * image[:, other[0], other[1]].numpy()
            else:
                system[row, hidden.index(other)] -= weight
    filled = image.clone()
    for (i, j), color in zip(hidden, np.linalg.solve(system, right), strict=True):
        filled[:, i, j] = torch.from_numpy(color)
    return filled


@pytest.mark.parametrize("size", [(9, 7), (1, 8), (8, 1), (2, 2)])
def test_hidden_pixels_solve_the_dense_system(size):
    images = torch.randn(4, 2, *size, dtype=torch.float64)
    visible = torch.rand(4, *size) > torch.tensor([0.1, 0.4, 0.6, 0.9])[:, None, None]
    visible[:, 0, 0], visible[:, -1, -1] = True, False
    found = linear_imputation(images, visible)
    expected = torch.stack(list(map(dense, images, visible)))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    single = linear_imputation(images.float(), visible)
    assert single.dtype is torch.float32
    torch.testing.assert_close(single, expected.float())


def test_what_is_linear_is_recovered():
    row, column = torch.meshgrid(torch.arange(12.0), torch.arange(10.0), indexing="ij")
    images = torch.stack([torch.full_like(row, 3.0), 2 * row - 0.5 * column + 1])[:, None].double()
    visible = torch.ones(2, 12, 10, dtype=torch.bool)
    visible[:, 2:9, 3:8] = False
    torch.testing.assert_close(linear_imputation(images, visible), images, rtol=0, atol=1e-12)
    visible[:, :, 4:] = False  # up to the borders, beyond which nothing goes on
    found = linear_imputation(images, visible)
    torch.testing.assert_close(found[0], images[0], rtol=0, atol=1e-12)
    assert float((found[1] - images[1]).abs().max()) > 0.5


def test_an_image_without_any_pixel_gets_its_mean_and_one_with_all_is_itself():
    visible = torch.zeros(3, 32, 32, dtype=torch.bool)
    visible[1] = True
    found = linear_imputation(IMAGES, visible)
    assert torch.equal(found[1], IMAGES[1])
    torch.testing.assert_close(found[::2], IMAGES.mean((2, 3), True).expand_as(IMAGES)[::2])


def gone(image_scores, level):
    """Which pixels of 32 x 32 the most influential patches cover."""
    order = image_scores.flatten().argsort(descending=True)[: int(level * 16)]
    patches = torch.ones(16, dtype=torch.bool)
    patches[order] = False
    return patches.view(4, 4).repeat_interleave(8, 0).repeat_interleave(8, 1)


def test_deletion_runs_the_model_on_imputed_images():
    model, levels = model_of(), (0.25, 0.75, 1.0)
    read = read_token_model(model, IMAGES)
    without = ImputePixels(noise=0)
    found = deletion_logits(read, IMAGES, {"a": SCORES}, levels, 2, without)["a"]
    for s, level in enumerate(levels[:2]):
        for i in range(3):
            picture = dense(IMAGES[i], gone(SCORES[i], level))
            expected = model(picture[None])[0]
            torch.testing.assert_close(found.most_influential_first[i, s], expected)
    mean = IMAGES.mean((2, 3), True).expand_as(IMAGES)
    torch.testing.assert_close(found.least_influential_first[:, 2], model(mean))
    assert found.perturbation == "pixels_road"


def test_the_noise_is_that_of_the_image_where_it_is_hidden():
    model, seen = model_of(), []
    read = read_token_model(model, IMAGES)
    kept = torch.rand(6, 16, generator=torch.Generator().manual_seed(2)) > 0.5
    numbers = torch.tensor([0, 1, 2, 0, 1, 2])
    both = PERTURBATIONS["pixels_road"].begin(read, IMAGES)
    alone = PERTURBATIONS["pixels_road"].begin(read, IMAGES[1:2])
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    both(numbers, kept, 0), alone(torch.tensor([0]), kept[4:5], 0)
    assert torch.equal(seen[0][4], seen[1][0])
    visible = kept.view(6, 4, 4).repeat_interleave(8, 1).repeat_interleave(8, 2)
    noise = seen[0] - linear_imputation(IMAGES[numbers], visible)
    assert torch.equal(noise.abs().sum(1) > 0, ~visible)
    hidden_twice = ~visible[0] & ~visible[3]
    torch.testing.assert_close(noise[0][:, hidden_twice], noise[3][:, hidden_twice])
    drawn = torch.cat([n[:, ~v].flatten() for n, v in zip(noise, visible, strict=True)])
    assert float(drawn.std()) == pytest.approx(0.01, rel=0.05)
    assert abs(float(drawn.mean())) < 1e-3
