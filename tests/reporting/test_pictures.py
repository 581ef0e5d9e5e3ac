"""What the user's data module and arguments say of the images decides how they are drawn."""

import lightning as L
import pytest
import torch
from audit_cases import Classifier, loader, quick_audit, trainer

from libragrad_lightning.reporting import PanelDrawer

MEAN, STD = (0.5, 0.25, 0.125), (0.25, 0.5, 0.75)


class Data(L.LightningDataModule):
    def __init__(self, **attributes):
        super().__init__()
        vars(self).update(attributes)

    def val_dataloader(self):
        return loader(count=16)


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """Runs a validation, and returns the normalization that its pictures undo."""
    seen = []
    draw = PanelDrawer.draw

    def spy(self, chunk):
        seen.append((self.pictures.mean, self.pictures.std))
        draw(self, chunk)

    monkeypatch.setattr(PanelDrawer, "draw", spy)

    def run(data, module=None, **arguments):
        callback = quick_audit(**arguments)
        trainer(tmp_path, [callback]).validate(module or Classifier(), data, verbose=False)
        return seen[-1]

    return run


@pytest.mark.parametrize(
    "form",
    [tuple, list, torch.tensor, lambda values: torch.tensor(values).view(1, 3, 1, 1)],
)
def test_the_normalization_is_that_of_the_data_module(shown, form):
    assert shown(Data(image_mean=form(MEAN), image_std=form(STD))) == (MEAN, STD)


def test_arguments_come_first_and_together(shown):
    data, other = Data(image_mean=MEAN, image_std=STD), (0.75, 0.75, 0.75)
    assert shown(data, image_mean=other, image_std=STD[::-1]) == (other, STD[::-1])
    assert shown(data, image_mean=other) == (other, None)
    assert shown(data, image_std=other) == (None, other)


def test_a_normalization_inside_of_the_model_is_not_undone(shown):
    module = Classifier()
    module.register_buffer("image_mean", torch.tensor(MEAN))
    assert shown(Data(), module) == (None, None)
    assert shown(Data(image_mean=MEAN), module) == (MEAN, None)
    assert shown(loader(count=16), module) == (None, None)
