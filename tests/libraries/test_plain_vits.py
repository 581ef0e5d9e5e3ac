"""Plain vision transformers without a module for a block are explained as timm's, to rounding."""

from functools import partial

import pytest
import timm
import torch
from torch import nn
from vit_pytorch import ViT
from x_transformers import Encoder, ViTransformerWrapper

from libragrad_lightning import explain
from libragrad_lightning.backward import LibraGradError

WIDTH, DEPTH = 24, 3
METHODS = ("fullgrad_plus", "gradcam_plus", "attcat", "genatt", "tokentm", "input_x_gradient_plus")


def randomized(model):
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator).double()
    return model.double().eval()


def timm_twin(embedding, **arguments):
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=WIDTH, depth=DEPTH,
        num_heads=2, mlp_ratio=4, num_classes=5, **arguments,
    )  # fmt: skip
    model.patch_embed = embedding
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model.double().eval()


def copied(pairs):
    for to, source in pairs:
        if isinstance(source, nn.Module):
            to.load_state_dict({**to.state_dict(), **source.state_dict()})
        else:
            to.data.copy_(source)


def scale(norm):
    return norm.gamma + float(norm.unit_offset)


def lucidrains_vit():
    model = randomized(
        ViT(image_size=32, patch_size=8, num_classes=5, dim=WIDTH, depth=DEPTH, heads=2,
            dim_head=WIDTH // 2, mlp_dim=4 * WIDTH)
    )  # fmt: skip
    twin = timm_twin(model.to_patch_embedding)
    randomized(twin.patch_embed).load_state_dict(model.to_patch_embedding.state_dict())
    pairs = [
        (twin.cls_token, model.cls_token.reshape(1, 1, -1)),
        (twin.pos_embed, model.pos_embedding.reshape(1, -1, WIDTH)),
        (twin.norm, model.transformer.norm),
        (twin.head, model.mlp_head),
    ]
    for block, (attention, mlp) in zip(twin.blocks, model.transformer.layers, strict=True):
        norm, up, down = (mlp.net[i] for i in (0, 1, 4))
        pairs += [
            (block.norm1, attention.norm),
            (block.attn.qkv.weight, attention.to_qkv.weight),
            (block.attn.proj, attention.to_out[0]),
            (block.norm2, norm),
            (block.mlp.fc1, up),
            (block.mlp.fc2, down),
        ]
    copied(pairs)
    return model, twin


def x_transformer():
    model = randomized(
        ViTransformerWrapper(
            image_size=32, patch_size=8, num_classes=5,
            attn_layers=Encoder(dim=WIDTH, depth=DEPTH, heads=2, attn_dim_head=WIDTH // 2),
        )
    )  # fmt: skip

    class Embedding(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = model.patch_to_embedding

        def forward(self, images):
            patches = images.unflatten(2, (4, 8)).unflatten(4, (4, 8)).permute(0, 2, 4, 3, 5, 1)
            return self.embedding(patches.flatten(3).flatten(1, 2))

    twin = timm_twin(Embedding(), class_token=False, global_pool="avg", fc_norm=False)
    randomized(model)
    layers = model.attn_layers.layers
    pairs = [
        (twin.pos_embed, model.pos_embedding),
        (twin.norm.weight, scale(model.attn_layers.final_norm)),
        (twin.head, model.mlp_head),
    ]
    for i, block in enumerate(twin.blocks):
        layers[2 * i][1].attend.attn_fn = partial(torch.softmax, dim=-1)  # else in float32
        (before, attention, _), (between, mlp, _) = layers[2 * i], layers[2 * i + 1]
        qkv = [attention.to_q.weight, attention.to_k.weight, attention.to_v.weight]
        pairs += [
            (block.norm1.weight, scale(before[0])),
            (block.attn.qkv.weight, torch.cat(qkv)),
            (block.attn.proj.weight, attention.to_out.weight),
            (block.norm2.weight, scale(between[0])),
            (block.mlp.fc1, mlp.ff[0][0]),
            (block.mlp.fc2, mlp.ff[2]),
        ]
    copied(pairs)
    return model, twin


IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("rules", ["libra", "plain"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("build", [lucidrains_vit, x_transformer])
def test_maps_are_those_of_timm(build, method, rules):
    model, twin = build()
    for norm in (module for module in twin.modules() if isinstance(module, nn.LayerNorm)):
        norm.eps = 1e-5
    torch.testing.assert_close(model(IMAGES), twin(IMAGES), rtol=0, atol=1e-10)
    arguments = {"method": method, "rules": rules, "target": 1}
    if build is x_transformer and method in ("genatt", "tokentm"):
        for one in (model, twin):
            with pytest.raises(LibraGradError, match="has no class token"):
                explain(one, IMAGES, **arguments)
        return
    expected, found = (explain(one, IMAGES, **arguments) for one in (twin, model))
    assert found.residuals.shape == (DEPTH, 3)
    scale = float(expected.attribution.abs().max())
    for name in ("attribution", "prefix", "reward_sums"):
        expectation = getattr(expected, name)
        torch.testing.assert_close(
            getattr(found, name), expectation, rtol=1e-10, atol=1e-10 * scale
        )
