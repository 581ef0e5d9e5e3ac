"""A small vision transformer, and its FullGrad decomposition at the pixels."""

from contextlib import nullcontext

import libragrad_lightning  # noqa: F401  (repairs torchvision in processes without a conftest)

# isort: split
import timm
import torch
import torch.nn.functional as F
from torch import nn

from libragrad_lightning.backward import ConstantObserver, grad
from libragrad_lightning.models import explanation_state

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


class Trained(nn.Module):
    """A convolution, a layer that behaves differently in training, and a head."""

    def __init__(self, layer):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 8, 8)
        self.layer = layer
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(F.gelu(self.layer(self.stem(x))).mean((2, 3)))


def vit(seed=0, **kwargs):
    torch.manual_seed(seed)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **(SMALL | kwargs)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    return model.double()


def images(count=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 32, 32, generator=generator, dtype=torch.float64)


def explained(model, pixels, state=explanation_state):
    """Return the logits, and the sum of all contributions to the first of them."""
    with state(model), ConstantObserver():
        x = pixels.clone().requires_grad_()
        logits = model(x)
        total = [torch.zeros((), dtype=torch.float64)]
        (gradient,) = grad(
            logits[:, 0].sum(), x, on_bias=lambda _, c: total.append(c.double().sum())
        )
    total.append((gradient.double() * x.detach().double()).sum())
    return logits.detach(), torch.stack(total).sum()


def as_it_is(model):
    """Stand in for `explanation_state`: leave the model as it is."""
    return nullcontext()


def assert_complete(logits, total, tolerance=1e-12):
    score = logits[:, 0].double().sum()
    assert float((total - score).abs() / score.abs()) < tolerance
