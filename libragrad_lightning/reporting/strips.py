"""Keeps the maps of probe images over all audits, and draws them beside each other.

Loggers show one audit at a time, and TensorBoard keeps ten pictures of each name unless it is told
otherwise; in a strip the first and the last audit are always there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from libragrad_lightning.audit import AuditRecord, Key
from libragrad_lightning.heatmaps import StripMoment, strip
from libragrad_lightning.placement import Placement, Span
from libragrad_lightning.reporting.panels import DrawnPanel
from libragrad_lightning.reporting.summary import moment_name

_SHOWN = 8
_KEPT = 2 * _SHOWN
_LARGEST_MAP = 28
"""Longer side of a map that is kept: more is not seen in a strip."""


@dataclass(frozen=True)
class _Kept:
    """A map at one audit: which one of the run it was, and when."""

    number: int
    epoch: int | None
    step: int
    weights: str
    moment: StripMoment


@dataclass
class _ImageStrip:
    """What is kept of an image: of many audits every second, fourth, ... one, and the last."""

    key: Key
    panel: DrawnPanel | None = None
    stride: int = 1
    kept: list[_Kept] = field(default_factory=list)

    def add(self, kept: _Kept) -> None:
        if self.kept and self.kept[-1].number % self.stride:
            self.kept.pop()
        self.kept.append(kept)
        if len(self.kept) > _KEPT:
            self.stride *= 2
            self.kept = [k for k in self.kept if k is kept or k.number % self.stride == 0]

    def shown(self) -> list[StripMoment]:
        """Return evenly chosen moments, the first and the last among them."""
        last = len(self.kept) - 1
        count = min(_SHOWN, len(self.kept))
        chosen = [self.kept[round(i * last / max(1, count - 1))] for i in range(count)]
        several = max(Counter(k.epoch for k in chosen).values(), default=0) > 1
        return [
            replace(k.moment, title=f"{moment_name(k, several)}\n{k.moment.title}") for k in chosen
        ]


class Strips:
    """Collects what panels show, audit by audit."""

    def __init__(self) -> None:
        self._images: dict[int, _ImageStrip] = {}
        self._audits = 0

    def begin_anew(self) -> None:
        """Forget all audits."""
        self._images, self._audits = {}, 0

    def add(self, drawn: Mapping[int, DrawnPanel], record: AuditRecord) -> None:
        """Go on with the panels of an audit."""
        for number, panel in drawn.items():
            own = self._images.get(number)
            if own is None or own.key != panel.key:
                own = self._images[number] = _ImageStrip(panel.key)
            own.panel = panel
            maps = {rules: _small(found) for rules, found in panel.moment.maps.items()}
            moment = replace(panel.moment, maps=maps)
            found = (self._audits, record.epoch, record.step, record.weights, moment)
            own.add(_Kept(*found))
        self._audits += 1

    def drawn(self) -> dict[str, Tensor]:
        """Return strips `[3, H, W]` by tags such as ``strip_000/sandal``, of two audits or more."""
        return {
            own.panel.tag.replace("image", "strip", 1): strip(
                own.panel.image, own.shown(), own.panel.label
            )
            for _, own in sorted(self._images.items())
            if own.panel is not None and len(own.kept) > 1
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what goes into a checkpoint: plain values and tensors."""
        images = {
            number: {
                "key": own.key,
                "stride": own.stride,
                "kept": [
                    {
                        **{name: getattr(k, name) for name in ("number", "epoch", "step")},
                        "weights": k.weights,
                        "title": k.moment.title,
                        "maps": dict(k.moment.maps),
                        "placement": asdict(k.moment.placement),
                    }
                    for k in own.kept
                ],
            }
            for number, own in self._images.items()
        }
        return {"audits": self._audits, "images": images}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; strips are drawn again after the next audit."""
        self._audits = state["audits"]
        self._images = {
            number: _ImageStrip(tuple(own["key"]), None, own["stride"], _moments(own["kept"]))
            for number, own in state["images"].items()
        }


def _moments(kept: Sequence[Mapping[str, Any]]) -> list[_Kept]:
    return [
        _Kept(
            *(k["number"], k["epoch"], k["step"]),
            weights=k["weights"],
            moment=StripMoment(k["title"], k["maps"], _placement(k["placement"])),
        )
        for k in kept
    ]


def _placement(kept: Mapping[str, Mapping[str, float]]) -> Placement:
    return Placement(Span(**kept["rows"]), Span(**kept["columns"]))


def _small(attribution: Tensor) -> Tensor:
    """Return a map `[h, w]` at no more than the size at which it is kept."""
    longer = max(attribution.shape)
    if longer <= _LARGEST_MAP:
        return attribution
    size = tuple(max(1, round(side * _LARGEST_MAP / longer)) for side in attribution.shape)
    return F.interpolate(attribution[None, None], size, mode="area")[0, 0]
