"""Refusals name the true cause, and their advice works."""

import pytest
import timm
import torch
from torch import nn

from libragrad_lightning import explain
from libragrad_lightning.models import UnreadableModelError

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def vit():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", num_classes=5, **SMALL).eval()


class Probe(nn.Module):
    """A head on frozen features."""

    def __init__(self, how):
        super().__init__()
        self.backbone, self.head, self.how = vit(), nn.Linear(24, 4), how
        self.backbone.reset_classifier(0)

    def forward(self, x):
        return self.head(self.features(x))

    def features(self, x):
        if self.how == "detach":
            return self.backbone(x).detach()
        if self.how == "no_grad":
            with torch.no_grad():
                return self.backbone(x)
        if self.how == "inference":
            with torch.inference_mode():
                found = self.backbone(x)
            return found.clone()
        if self.how == "stem":
            with torch.no_grad():
                tokens = self.backbone._pos_embed(self.backbone.patch_embed(x))
            return self.backbone.norm(self.backbone.blocks(tokens))[:, 0]
        return self.backbone(x)


ENDS = {
    "detach": "ends behind backbone",
    "no_grad": "ends before any module returns",
    "inference": "ends before any module returns",
    "stem": "ends before any module returns",
}


@pytest.mark.parametrize("how", ENDS)
def test_a_cut_graph_is_named_with_its_place(how):
    model = Probe(how)
    with pytest.raises(UnreadableModelError, match=f"{ENDS[how]}.*`forward` without them"):
        explain(model, IMAGES)
    model.how = "whole"
    model.backbone.requires_grad_(False)
    explanation = explain(model, IMAGES)
    assert explanation.residuals.abs().max() < 1e-4


def test_torchscript_is_named():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch.jit.trace(vit(), IMAGES)

        def forward(self, x):
            return self.net(x)

    with pytest.raises(UnreadableModelError, match=r"compiled by TorchScript.*made from"):
        explain(Wrapped(), IMAGES)


class Images(torch.Tensor):
    """Images that remember something, as those of MONAI do."""


def test_images_of_a_subclass_are_explained_as_plain_ones():
    model = vit()
    found = explain(model, IMAGES.as_subclass(Images))
    assert type(found.attribution) is torch.Tensor
    assert torch.equal(found.attribution, explain(model, IMAGES).attribution)


def test_a_backbone_that_does_not_run_is_named():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.spare = vit(), vit()

        def forward(self, x):
            return self.net(x)

    with pytest.raises(UnreadableModelError, match=r"none of its modules received.*`backbone`"):
        explain(Unused(), IMAGES, backbone="spare")
    assert explain(Unused(), IMAGES, backbone="net").attribution.shape == (2, 4, 4)
    with pytest.raises(UnreadableModelError, match=r"spare.blocks.0.* received nothing"):
        explain(Unused(), IMAGES, blocks=["spare.blocks.0"])


def test_blocks_that_receive_a_part_are_named():
    with pytest.raises(UnreadableModelError, match=r"'blocks.0.attn.qkv' in `blocks` received \(2"):
        explain(vit(), IMAGES, blocks=["blocks.0.attn.qkv"])
    found = explain(vit(), IMAGES, blocks=["blocks.0", "blocks.1"])
    assert torch.equal(found.attribution, explain(vit(), IMAGES).attribution)


def test_latents_lie_nowhere():
    class Latents(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.stem, self.latents = nn.Conv2d(3, 24, 8, 8), nn.Parameter(torch.randn(1, 8, 24))
            self.norm = nn.LayerNorm(24)
            self.read = nn.MultiheadAttention(24, 2, batch_first=True)
            layer = nn.TransformerEncoderLayer(24, 2, 48, 0, batch_first=True)
            self.blocks, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(24, 5)

        def forward(self, x):
            patches = self.norm(self.stem(x).flatten(2).transpose(1, 2))
            z = self.read(self.latents.expand(len(x), -1, -1), patches, patches)[0]
            return self.head(self.blocks(z).mean(1))

    with pytest.raises(UnreadableModelError, match=r"lie in no grid of the image.*`blocks`"):
        explain(Latents().eval(), IMAGES)
    found = explain(Latents().eval(), IMAGES, blocks=["norm"], reward="logit")
    assert found.attribution.shape == (2, 4, 4)
    assert found.residuals.abs().max() < 1e-4
