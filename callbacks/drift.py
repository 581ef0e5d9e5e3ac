"""The maps of the last audit, which the next one is compared with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from libragrad_lightning.callbacks.processes import Share
from torch import Tensor


@dataclass(frozen=True)
class LastMaps:
    """The maps of an audit, over all processes.

    Attributes:
        fingerprints: What tells the images from others, by their ids, in the order of the maps.
        maps: `[N, h, w]`, float32, by rule set.
    """

    fingerprints: Mapping[int, int] = field(default_factory=dict)
    maps: Mapping[str, Tensor] = field(default_factory=dict)

    def of(self, ids: Sequence[int], changed: Collection[int]) -> dict[str, Tensor]:
        """Return the maps of images `[n, h, w]` by rule set, NaN for changed or unknown ones."""
        rows = {sample_id: row for row, sample_id in enumerate(self.fingerprints)}
        chosen = [-1 if i in changed else rows.get(i, -1) for i in ids]
        if not ids or all(row < 0 for row in chosen):
            return {}
        index = torch.tensor(chosen)
        missing = (index < 0)[:, None, None]
        return {
            rules: maps[index].masked_fill(missing, float("nan"))
            for rules, maps in self.maps.items()
        }

    def changed(self, fingerprints: Mapping[int, int]) -> set[int]:
        """Return the ids under which other images are found now than before."""
        return {i for i, f in fingerprints.items() if self.fingerprints.get(i, f) != f}

    def state_dict(self) -> dict[str, Any]:
        """Return what goes into a checkpoint."""
        return {"fingerprints": dict(self.fingerprints), "maps": dict(self.maps)}


def last_maps(shares: Sequence[Share]) -> LastMaps:
    """Return the maps of all processes."""
    filled = [share for share in shares if share.ids]
    prints = {i: f for share in filled for i, f in zip(share.ids, share.fingerprints, strict=True)}
    rules = filled[0].maps if filled else {}
    return LastMaps(prints, {name: torch.cat([s.maps[name] for s in filled]) for name in rules})
