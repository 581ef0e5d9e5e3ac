"""Weights are read from whatever file they are in, and are those of the model or are refused."""

import argparse

import lightning as L
import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from libragrad_lightning.commands.models import timm_model
from libragrad_lightning.commands.weights import read_weights, weights_of


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=5).eval()


class Fitted(L.LightningModule):
    def __init__(self, net):
        super().__init__()
        self.net, self.teacher = net, nn.Linear(2, 2)


def files(model, folder):
    """The same weights in every form."""
    state, own = model.state_dict(), Fitted(model)
    compiled = {f"net._orig_mod.{k}": v for k, v in state.items()}
    contents = {
        "plain.pt": state,
        "timm.pth.tar": {"epoch": 3, "state_dict": state},
        "other.pt": {"model": state, "optimizer": {}},
        "lightning.ckpt": {"state_dict": own.state_dict(), "hyper_parameters": {"lr": 1e-3}},
        "compiled.ckpt": {"state_dict": compiled},
    }
    for name, content in contents.items():
        torch.save(content, folder / name)
        yield folder / name
    safetensors.torch.save_file(state, folder / "weights.safetensors")
    yield folder / "weights.safetensors"


def test_the_same_weights_come_out_of_every_form(model, tmp_path):
    images = torch.rand(1, 3, 160, 160)
    for path in files(model, tmp_path):
        found = timm_model("timm/test_vit", str(path))
        assert found.model.num_classes == 5
        assert not found.model.training
        assert torch.equal(found.model(images), model(images)), path.name


def test_the_average_of_weights_counts_where_there_is_one(model, tmp_path):
    zeros = {k: torch.zeros_like(v) for k, v in model.state_dict().items()}
    torch.save({"state_dict": zeros, "state_dict_ema": model.state_dict()}, tmp_path / "a.pt")
    found = read_weights(tmp_path / "a.pt")
    assert all(torch.equal(found[k], v) for k, v in model.state_dict().items())


def test_weights_of_another_model_are_refused(model, tmp_path):
    torch.save(timm.create_model("test_vit2", num_classes=5).state_dict(), tmp_path / "two.pt")
    with pytest.raises(ValueError, match=r"not one of this model: it (has no|also holds) .*chang"):
        timm_model("test_vit", str(tmp_path / "two.pt"))
    wide = timm.create_model("test_vit", num_classes=5, img_size=320)
    torch.save(wide.state_dict(), tmp_path / "wide.pt")
    with pytest.raises(ValueError, match=r"pos_embed has the shape \(1, 401, 64\) there and"):
        timm_model("test_vit", str(tmp_path / "wide.pt"))


def test_a_part_of_the_weights_is_refused(model):
    state = model.state_dict()
    some = {k: v for k, v in state.items() if k != "blocks.1.mlp.fc1.bias"}
    with pytest.raises(ValueError, match=r"it has no blocks.1.mlp.fc1.bias; change model or"):
        weights_of(model, some)
    with pytest.raises(ValueError, match=r"it also holds net.blocks.6.extra; change model or"):
        weights_of(model, {f"net.{k}": v for k, v in state.items()} | {"net.blocks.6.extra": v0()})


def v0():
    return torch.zeros(1)


def test_files_without_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"There is no file .*none.pt; change checkpoint"):
        read_weights(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(ValueError, match=r"text.pt holds no weights that can be read without runn"):
        read_weights(tmp_path / "text.pt")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(ValueError, match=r"holds no weights that can be read without running"):
        read_weights(tmp_path / "text.safetensors")
    torch.save({"hyper": argparse.Namespace(lr=1)}, tmp_path / "code.ckpt")
    with pytest.raises(ValueError, match=r"without running code .*pass that as checkpoint"):
        read_weights(tmp_path / "code.ckpt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(ValueError, match=r"holds no weights by their names; save the model's"):
        read_weights(tmp_path / "empty.pt")


def test_names_that_timm_does_not_know_come_with_near_ones():
    with pytest.raises(ValueError, match=r"no model 'tset_vit'; change model to 'test_vit' or"):
        timm_model("tset_vit")
    with pytest.raises(ValueError, match=r"no weights 'test_vit.nope'; change model to one of"):
        timm_model("test_vit.nope")
    with pytest.raises(ValueError, match=r"no pretrained weights of '.*'; pass a file"):
        timm_model(next(n for n in timm.list_models() if not timm.is_model_pretrained(n)))


def test_weights_that_cannot_be_fetched_are_told(monkeypatch):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match=r"'test_vit' cannot be fetched \(OSError: no network"):
        timm_model("test_vit")


def test_random_weights_have_no_names_of_classes():
    found = timm_model("test_vit", random_weights=True)
    assert found.class_names == ()
    assert found.image_size == (3, 160, 160)


def test_pretrained_weights_bring_the_names_of_imagenets_classes(monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name))
    names = timm_model("test_vit").class_names
    assert len(names) == 1000
    assert names[281] == "tabby"
