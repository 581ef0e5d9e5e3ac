"""Images explained together get the maps that they get alone, in whatever order rows are stored."""

import pytest
import torch
from torchvision.models import VisionTransformer

from libragrad_lightning import explain


def torchvision_vit():
    return VisionTransformer(
        image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32,
        num_classes=5,
    )  # fmt: skip


@pytest.mark.parametrize("rules", ["libra", "plain", "attn_lrp"])
def test_maps_of_a_batch_are_those_of_its_images(rules):
    torch.manual_seed(0)
    model = torchvision_vit().double().eval()
    for p in model.parameters():
        p.data.normal_(0, 0.3)
    images = torch.randn(4, 3, 16, 16).double()
    together = explain(model, images, rules=rules, reward="logit", batch_size=4)
    alone = explain(model, images, rules=rules, reward="logit", batch_size=1)
    torch.testing.assert_close(together.attribution, alone.attribution)
    torch.testing.assert_close(together.reward_sums, alone.reward_sums)
    if rules == "libra":
        assert together.residuals.abs().max() < 1e-12
