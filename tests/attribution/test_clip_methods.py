"""LeGrad, Grad-ECLIP and MaskCLIP equal another implementation, or their formula by hooks."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torchvision.models import VisionTransformer

from libragrad_lightning import explain
from libragrad_lightning.backward import LIBRA, PLAIN, grad

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
CLASSES = [2, 0, 4]
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}


def randomized(model):
    generator = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=generator).double()
    return model.double().eval()


def torchvision_vit():
    return randomized(
        VisionTransformer(
            image_size=32, patch_size=8, num_layers=3, num_heads=2, hidden_dim=24, mlp_dim=48,
            num_classes=5,
        )
    )  # fmt: skip


def timm_vit(name="vit_tiny_patch16_224"):
    return randomized(timm.create_model(name, num_classes=5, **SMALL))


def explained(model, method, rules="plain"):
    return explain(model, IMAGES, method=method, rules=rules, reward="logit", target=CLASSES)


def test_legrad_is_that_of_torchcam():
    torchcam = pytest.importorskip("torchcam.methods", reason="it wants Python 3.11")
    model = torchvision_vit()
    with torchcam.LeGrad(model, list(model.encoder.layers)) as extractor:
        (expected,) = extractor(CLASSES, model(IMAGES), normalized=False)
    found = explained(model, "legrad").attribution
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * expected.max())
    assert not torch.allclose(explained(model, "legrad", "libra").attribution, expected)


class Seen(dict):
    """What modules receive and return, and the gradients of what they return."""

    def watch(self, name, module):
        def keep(_, args, output):
            if output.requires_grad:
                output.retain_grad()
            self[name] = args[0], output

        module.register_forward_hook(keep)


def qkv_of(attention, tokens):
    shape = (3, attention.num_heads, attention.head_dim)
    return attention.qkv(tokens).unflatten(2, shape).permute(2, 0, 3, 1, 4)


def test_grad_eclip_is_the_formula_of_the_paper():
    model = timm_vit()
    seen = Seen()
    seen.watch("proj", model.blocks[-1].attn.proj)
    seen.watch("norm", model.blocks[-1].norm1)
    model.blocks[-1].attn.proj.register_forward_pre_hook(lambda _, args: args[0].retain_grad())
    model(IMAGES)[range(3), CLASSES].sum().backward()
    queries, keys, values = (
        t.transpose(1, 2).flatten(2) for t in qkv_of(model.blocks[-1].attn, seen["norm"][1])
    )
    weights = seen["proj"][0].grad[:, :1]
    cosines = F.normalize(queries[:, :1], dim=-1) @ F.normalize(keys[:, 1:], dim=-1).mT
    low, high = cosines.amin(2, keepdim=True), cosines.amax(2, keepdim=True)
    loosened = ((cosines - low) / (high - low))[:, 0]
    expected = ((weights * values[:, 1:]).sum(2) * loosened).relu()
    found = explained(model, "grad_eclip").attribution.flatten(1)
    torch.testing.assert_close(found, expected.detach())
    model.blocks[-1].attn.fused_attn = False
    torch.testing.assert_close(
        explained(model, "grad_eclip").attribution.flatten(1), expected.detach()
    )


def test_grad_eclip_under_libra_takes_the_gradient_of_libra():
    model = timm_vit()
    seen = Seen()
    seen.watch("proj", model.blocks[-1].attn.proj)
    logits = model(IMAGES)[range(3), CLASSES].sum()
    (of_plain,) = grad(logits, seen["proj"][1], rules=PLAIN, retain_graph=True)
    (of_libra,) = grad(logits, seen["proj"][1], rules=LIBRA)
    plain, libra = (explained(model, "grad_eclip", r).attribution for r in ("plain", "libra"))
    assert not torch.allclose(of_plain, of_libra)
    assert not torch.allclose(plain, libra)


def alone_in_the_last_block(model, tokens):
    """The last block of timm's ViT, every token attending to itself."""
    block = model.blocks[-1]
    _, _, values = qkv_of(block.attn, block.norm1(tokens))
    tokens = tokens + block.attn.proj(values.transpose(1, 2).flatten(2))
    return tokens + block.mlp(block.norm2(tokens))


def test_maskclip_is_the_dense_score_of_values():
    model = timm_vit()
    seen = Seen()
    seen.watch("block", model.blocks[-1])
    with torch.no_grad():
        model(IMAGES)
        dense = model.head(model.norm(alone_in_the_last_block(model, seen["block"][0])))
    expected = dense[torch.arange(3), 1:, torch.tensor(CLASSES)]
    found = explained(model, "maskclip")
    torch.testing.assert_close(found.attribution.flatten(1), expected)
    torch.testing.assert_close(explained(model, "maskclip", "libra").attribution, found.attribution)


def test_legrad_of_an_attention_pool_is_the_formula_of_the_paper():
    model = timm_vit("vit_base_patch16_siglip_224")
    seen = Seen()
    for i, block in enumerate(model.blocks):
        seen.watch(i, block)
    with torch.no_grad():
        model(IMAGES)
    pool, maps = model.attn_pool, []
    for i in range(3):
        tokens = model.norm(seen[i][1])
        q = pool.q(pool.latent.expand(3, -1, -1)).unflatten(2, (2, 12)).transpose(1, 2)
        k, v = pool.kv(tokens).unflatten(2, (2, 2, 12)).permute(2, 0, 3, 1, 4)
        attention = (q @ k.mT / 12**0.5).softmax(-1).detach().requires_grad_()
        pooled = pool.proj((attention @ v).transpose(1, 2).flatten(2))
        pooled = pooled + pool.mlp(pool.norm(pooled))
        model.fc_norm(pooled[:, 0])
        logits = model.head(model.fc_norm(pooled[:, 0]))
        (gradient,) = torch.autograd.grad(logits[range(3), CLASSES].sum(), attention)
        maps.append(gradient[:, :, 0].relu().mean(1))
    found = explained(model, "legrad").attribution.flatten(1)
    torch.testing.assert_close(found, torch.stack(maps).mean(0))


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "vit_small_patch14_reg4_dinov2"])
def test_maskclip_reads_no_rotary_table_where_a_token_is_alone(name):
    model = timm_vit(name)
    found = explained(model, "maskclip").attribution
    one = explain(
        model, IMAGES[1:2], method="maskclip", rules="plain", reward="logit", target=0
    ).attribution
    torch.testing.assert_close(found[1:2], one)
    assert found.flatten(1).std(1).min() > 0
