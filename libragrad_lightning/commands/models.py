"""Models of timm by their names, with what belongs to them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any

import timm
import torch
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import Tensor, nn

from libragrad_lightning.commands.weights import read_weights, weights_of
from libragrad_lightning.models import is_out_of_memory


@dataclass(frozen=True)
class NamedModel:
    """A model, and what its classes are called.

    Attributes:
        model: The model, in evaluation mode.
        class_names: Names of the classes, in the order of the logits; empty if nobody knows them.
        image_size: Channels, height and width of an image.
        side: The side of images, if it is not that of timm's weights.
    """

    model: nn.Module
    class_names: tuple[str, ...]
    image_size: tuple[int, int, int]
    side: int | None = None


@dataclass(frozen=True)
class Build:
    """How a model differs from the one that timm knows by its name.

    Attributes:
        image_size: The side of its images; that of timm's weights if None.
        others: Further arguments of `timm.create_model`.
    """

    image_size: int | None = None
    others: Mapping[str, Any] = field(default_factory=dict)

    @property
    def side(self) -> int | None:
        """The side of images, from either argument; None if it is that of timm's weights."""
        return self.others.get("img_size") if self.image_size is None else self.image_size

    def arguments(self) -> dict[str, Any]:
        """Return arguments of `timm.create_model`.

        Raises:
            ValueError: If the side is no positive number.
        """
        if self.side is None:
            return dict(self.others)
        if not isinstance(self.side, int) or self.side < 1:
            raise ValueError(f"image_size must be a positive side but is {self.side}.")
        size = (3, self.side, self.side)
        overlay = {**self.others.get("pretrained_cfg_overlay", {}), "input_size": size}
        return {**self.others, "pretrained_cfg_overlay": overlay}


def timm_model(
    name: str,
    checkpoint: str | None = None,
    random_weights: bool = False,
    build: Build = Build(),
) -> NamedModel:
    """Return a model of timm with pretrained weights, those of a checkpoint, or random ones.

    Args:
        name: A name that timm knows, ``timm/`` before it or not.
        checkpoint: A file of weights, of this model or of a module that holds it. How many classes
            there are is read from it.
        random_weights: Whether to leave the weights as they are drawn.
        build: How the model differs from the one that timm knows by its name.

    Raises:
        ValueError: If timm does not know the name, does not take an argument, the weights cannot
            be fetched, or those of the checkpoint are not of this model.
    """
    name = name.removeprefix("timm/")
    _check_known(name)
    given = build.arguments()
    if checkpoint is not None:
        weights = read_weights(Path(checkpoint))
        model = _built(name, given)
        classes = _classes_in(model, weights)
        if classes is not None:
            model = _built(name, given | {"num_classes": classes})
        _load(model, weights_of(model, weights), name)
        return _named(model, (), build)
    if random_weights:
        return _named(_built(name, given), (), build)
    model = _pretrained(name, given)
    subset = infer_imagenet_subset(model)
    if not subset:
        return _named(model, (), build)
    info = ImageNetInfo(subset)
    count = int(model.num_classes)
    names = (str(info.index_to_description(i)).partition(",")[0] for i in range(count))
    return _named(model, tuple(names), build)


def _named(model: Any, class_names: tuple[str, ...], build: Build) -> NamedModel:
    size = tuple(model.pretrained_cfg["input_size"])
    return NamedModel(model.eval(), class_names, size, build.side)


def _check_known(name: str) -> None:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), 3, 0.5)
        known = " or ".join(map(repr, near)) or "a name of `timm.list_models()`"
        raise ValueError(f"timm has no model {architecture!r}; change model to {known}.")
    if tag and name not in timm.list_pretrained(architecture):
        known = ", ".join(timm.list_pretrained(architecture)) or repr(architecture)
        raise ValueError(f"timm has no weights {name!r}; change model to one of {known}.")


def _pretrained(name: str, given: Mapping[str, Any]) -> Any:
    if given:
        _built(name, given)  # What is wrong with arguments is not the fault of the network.
    if not timm.is_model_pretrained(name):
        raise ValueError(
            f"timm has no pretrained weights of {name!r}; pass a file as checkpoint, or set "
            "random_weights to true."
        )
    try:
        return timm.create_model(name, pretrained=True, **given)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"The weights of {name!r} cannot be fetched ({_reason(error)}); run it once where "
            "there is a network, or pass a file as checkpoint."
        ) from error


def _built(name: str, given: Mapping[str, Any]) -> Any:
    try:
        return timm.create_model(name, **given)
    except Exception as error:
        if not given or is_out_of_memory(error):
            raise
        raise ValueError(
            f"timm does not make {name!r} so ({_reason(error)}); change image_size or model_kwargs."
        ) from error


def _reason(error: Exception) -> str:
    reason = shorten(str(error), 160, placeholder="...").removesuffix(".")
    return f"{type(error).__name__}: {reason}"


def _classes_in(model: Any, weights: dict[str, Tensor]) -> int | None:
    """Return how many classes the head in a checkpoint has, None if it has no such layer."""
    heads = model.pretrained_cfg.get("classifier")
    for head in [heads] if isinstance(heads, str) else heads or ():
        for key in (f"{head}.weight", f"{head}.fc.weight"):
            rows = {len(t) for k, t in weights.items() if k == key or k.endswith(f".{key}")}
            if len(rows) == 1:
                return rows.pop()
    return None


def _load(model: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    shapes = {k: (tuple(t.shape), tuple(weights[k].shape)) for k, t in model.state_dict().items()}
    other = [k for k, (expected, found) in shapes.items() if expected != found]
    if other:
        expected, found = shapes[other[0]]
        raise ValueError(
            f"The checkpoint is not one of {name!r}: {other[0]} has the shape {found} there and "
            f"{expected} in the model; change model or checkpoint, or pass the image_size or "
            "model_kwargs that it was trained with."
        )
    model.load_state_dict(weights)


def default_device() -> torch.device:
    """Return the accelerator that there is, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
