"""Pictures in TensorBoard's event files, encoded smaller than its own writer does."""

from __future__ import annotations

from typing import Any

from tensorboard.compat.proto.summary_pb2 import (
    Summary,  # pyright: ignore[reportAttributeAccessIssue]  (made when it is imported)
)
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from libragrad_lightning.heatmaps import encoded


def add_picture(writer: SummaryWriter, tag: str, image: Tensor, step: int) -> None:
    """Write a picture, as `SummaryWriter.add_image` does, which knows PNG only.

    Args:
        writer: Where to.
        tag: Its name.
        image: Picture `[3, H, W]`, uint8, or floating point in [0, 1].
        step: The step.
    """
    content, _ = encoded(image)
    height, width = image.shape[1:]
    picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
    summary = Summary(value=[Summary.Value(tag=tag, image=picture)])
    files: Any = writer._get_file_writer()
    files.add_summary(summary, step)
