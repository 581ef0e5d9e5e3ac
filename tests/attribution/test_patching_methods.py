"""Activations of patches in a neutral image, against hooks that put them there one by one."""

import pytest
import timm
import torch
from torch import nn

from libragrad_lightning import explain
from libragrad_lightning.attribution import ActivationPatching

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
CLASSES = [2, 0, 4]
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2}


def vit(name="vit_tiny_patch16_224", **kwargs):
    model = timm.create_model(name, num_classes=5, **(SMALL | kwargs)).eval()
    generator = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=generator).double()
    return model.double()


def adding(**kwargs):
    """A model whose logits are sums over patches, as its blocks add nothing."""
    model = vit(global_pool="avg", class_token=False, norm_layer=nn.Identity, **kwargs)
    for block in model.blocks:
        for last in (block.attn.proj, block.mlp.fc2):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
    return model


def explained(model, method="caap", images=IMAGES, target=CLASSES, **kwargs):
    return explain(model, images, method=method, reward="logit", target=target, sums=(), **kwargs)


def by_hooks(model, blocks, prefix):
    """Run the neutral image once for every patch, with hooks before these blocks."""
    entered = {}
    hooks = [
        model.blocks[i].register_forward_pre_hook(
            lambda _, args, i=i: entered.__setitem__(i, args[0].detach().clone())
        )
        for i in blocks
    ]
    model(IMAGES)
    for hook in hooks:
        hook.remove()
    maps = torch.zeros(3, 16).double()
    for row, image in enumerate(IMAGES):
        neutral = torch.ones_like(image) * image.mean((1, 2))[:, None, None]
        alone = model(neutral[None])[0, CLASSES[row]]
        for patch in range(16):

            def put(_, args, i, row=row, place=prefix + patch):
                tokens = args[0].clone()
                tokens[0, place] = entered[i][row, place]
                return (tokens, *args[1:])

            hooks = [
                model.blocks[i].register_forward_pre_hook(lambda m, a, i=i, put=put: put(m, a, i))
                for i in blocks
            ]
            maps[row, patch] = model(neutral[None])[0, CLASSES[row]] - alone
            for hook in hooks:
                hook.remove()
    return maps.view(3, 4, 4)


@pytest.mark.parametrize(
    ("method", "blocks"),
    [
        (ActivationPatching(), [1, 2]),
        (ActivationPatching(rows=7), [1, 2]),
        (ActivationPatching(0, 1), [0, 1, 2, 3]),
        (ActivationPatching(0.7, 0.75, rows=100), [3]),
    ],
    ids=["default", "chunks", "all", "one"],
)
def test_it_equals_hooks_one_patch_at_a_time(method, blocks):
    model = vit()
    found = explained(model, method)
    with torch.no_grad():
        expected = by_hooks(model, blocks, prefix=1)
    torch.testing.assert_close(found.attribution, expected, rtol=1e-9, atol=1e-9)
    assert found.attribution.std() > 1e-3
    assert not found.prefix.any()


def test_prefix_tokens_behind_and_rotary_tables():
    model = vit("eva02_tiny_patch14_224", class_token=True)
    found = explained(model)
    with torch.no_grad():
        expected = by_hooks(model, [1, 2], prefix=1)
    torch.testing.assert_close(found.attribution, expected, rtol=1e-9, atol=1e-9)


def contributions(model, images):
    """What each patch gives to the logit of a model that adds patches, less a neutral patch."""
    neutral = images.mean((2, 3), keepdim=True).expand_as(images)
    off = model.patch_embed(images) - model.patch_embed(neutral)
    weights = model.head.weight[CLASSES]
    return torch.einsum("bnd,bd->bn", off, weights).view(3, 4, 4) / 16


def test_a_model_that_adds_patches_gets_their_contributions():
    model = adding()
    expected = contributions(model, IMAGES)
    for method in (ActivationPatching(), ActivationPatching(0, 1), ActivationPatching(0.9, 1)):
        found = explained(model, method).attribution
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


class Flips(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return (self.net(x) + self.net(x.flip(-1))) / 2


def test_patches_are_inserted_in_all_passes():
    model = adding()
    found = explained(Flips(model)).attribution
    flipped = contributions(model, IMAGES.flip(-1)).flip(-1)
    torch.testing.assert_close(
        found, (contributions(model, IMAGES) + flipped) / 2, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("rules", ["plain", "libra"])
def test_rules_and_other_images_of_the_batch_change_nothing(rules):
    model = vit()
    whole = explained(model, rules=rules).attribution
    alone = explained(model, images=IMAGES[1:2], target=CLASSES[1:2], rules="libra").attribution
    torch.testing.assert_close(alone[0], whole[1])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 64, "depths": (1, 1, 2, 1), "embed_dim": 24, "num_heads": (1, 2, 2, 4)},
        ),
        ("resnet18", {}),
        ("xcit_nano_12_p16_224", {"depth": 2}),
    ],
)
def test_feature_maps_and_models_that_remember_their_batch(name, arguments):
    """A neutral image in the place of the image itself: then nothing changes the reward."""
    model = timm.create_model(name, num_classes=5, **arguments).eval()
    images = torch.randn(2, 3, 64, 64)
    found = explained(model, images=images, target=[1, 2]).attribution
    assert found.isfinite().all()
    assert found.flatten(1).std(1).min() > 0
    itself = ActivationPatching(neutral=lambda x: x)
    same = explained(model, itself, images=images, target=[1, 2]).attribution
    assert same.abs().max() < 1e-3 * found.abs().max()


def test_the_neutral_image_may_be_another():
    model = adding()
    black = explained(model, ActivationPatching(neutral=torch.zeros_like)).attribution
    off = model.patch_embed(IMAGES) - model.patch_embed(torch.zeros_like(IMAGES))
    expected = torch.einsum("bnd,bd->bn", off, model.head.weight[CLASSES]).view(3, 4, 4) / 16
    torch.testing.assert_close(black, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"start": 0.5, "stop": 0.5}, "`start` and `stop` must be shares of the blocks"),
        ({"stop": 1.5}, "`start` and `stop` must be shares"),
        ({"rows": 0}, "`rows` must be a positive number of patches"),
    ],
)
def test_what_cannot_be_inserted_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        ActivationPatching(**arguments)
