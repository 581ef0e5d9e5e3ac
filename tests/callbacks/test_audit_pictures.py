"""What the user's data module and arguments say of the images decides how they are drawn."""

import lightning as L
import pytest
import torch
from audit_cases import Classifier, loader, quick_audit, trainer
from libragrad_lightning.callbacks.pictures import shown_pictures

MEAN, STD = (0.5, 0.25, 0.125), (0.25, 0.5, 0.75)


class Data(L.LightningDataModule):
    def __init__(self, **attributes):
        super().__init__()
        vars(self).update(attributes)

    def val_dataloader(self):
        return loader(count=16)


def shown(tmp_path, data, module=None, **arguments):
    """The pictures' settings in a run."""
    callback, module = quick_audit(**arguments), module or Classifier()
    run = trainer(tmp_path, [callback])
    run.validate(module, data, verbose=False)
    found = shown_pictures(callback.auditor.pictures, run, module)
    return found.mean, found.std


@pytest.mark.parametrize(
    "form",
    [tuple, list, torch.tensor, lambda values: torch.tensor(values).view(1, 3, 1, 1)],
)
def test_the_normalisation_is_that_of_the_data_module(tmp_path, form):
    assert shown(tmp_path, Data(image_mean=form(MEAN), image_std=form(STD))) == (MEAN, STD)


def test_arguments_come_first_and_together(tmp_path):
    data, other = Data(image_mean=MEAN, image_std=STD), (0.75, 0.75, 0.75)
    assert shown(tmp_path, data, image_mean=other, image_std=STD[::-1]) == (other, STD[::-1])
    assert shown(tmp_path, data, image_mean=other) == (other, None)
    assert shown(tmp_path, data, image_std=other) == (None, other)


def test_a_normalisation_inside_of_the_model_is_not_undone(tmp_path):
    module = Classifier()
    module.register_buffer("image_mean", torch.tensor(MEAN))
    assert shown(tmp_path, Data(), module) == (None, None)
    assert shown(tmp_path, Data(image_mean=MEAN), module) == (MEAN, None)
    assert shown(tmp_path, loader(count=16), module) == (None, None)
