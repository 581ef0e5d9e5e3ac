"""Modules to which steps show images, and what is seen of such a step."""

import torch
from torch import nn

from libragrad_lightning.audit import watched_step

IMAGES = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 2, 1])
TEXT = torch.randn(3, 5)


class Root(nn.Module):
    """Holds what steps show images to."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
        self.other = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
        self.several = Several()


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.flat, self.head = nn.Flatten(), nn.Linear(48, 3)

    def forward(self, images, text=None):
        x = self.flat(images)
        return {"features": x, "logits": self.head(x), "aux": self.head(x) * 2, "odd": x[:, 0]}


def watched(step, batch=(IMAGES, LABELS), root=None):
    """The module, and what is seen of a step that it runs."""
    root = root or Root()
    with torch.no_grad(), watched_step(root, batch) as found:
        step(root)
    return root, found
