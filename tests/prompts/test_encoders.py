"""Image encoders are given images in the form that they take."""

from types import SimpleNamespace

import torch
from torch import nn
from transformers.models.siglip2.image_processing_siglip2 import convert_image_to_patches

from libragrad_lightning.prompts.encoders import dual_encoder


class OfPatches(nn.Module):
    """Remembers what it is given, as a model of transformers that takes rows of patches."""

    config = SimpleNamespace(model_type="siglip2", vision_config=SimpleNamespace(patch_size=2))

    def get_image_features(self, patches, mask, shapes):
        self.given = patches, mask, shapes
        return torch.ones(len(patches), 4)

    def get_text_features(self, input_ids):
        return torch.ones(len(input_ids), 4)


def test_images_are_cut_into_whole_patches_channels_last():
    model, images = OfPatches(), torch.randn(2, 3, 5, 7)
    found = dual_encoder(model).image_embeddings(images)
    patches, mask, shapes = model.given
    expected = [convert_image_to_patches(image, 2) for image in images[..., :4, :6]]
    assert torch.equal(patches, torch.stack(expected))
    assert torch.equal(mask, torch.ones(2, 6, dtype=torch.int64))
    assert shapes.tolist() == [[2, 3], [2, 3]]
    torch.testing.assert_close(found, torch.full((2, 4), 0.5))


def test_other_models_are_given_images_as_they_are():
    class Whole(OfPatches):
        config = SimpleNamespace(model_type="clip", vision_config=OfPatches.config.vision_config)

        def get_image_features(self, images):
            return images.mean((2, 3))

    images = torch.randn(2, 3, 5, 7)
    expected = nn.functional.normalize(images.mean((2, 3)), dim=-1)
    assert torch.equal(dual_encoder(Whole()).image_embeddings(images), expected)
