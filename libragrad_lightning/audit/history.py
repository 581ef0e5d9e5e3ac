"""The history of audits: their values, and the maps of the last one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from libragrad_lightning.audit.keys import Key
from libragrad_lightning.audit.result import AuditResult


@dataclass(frozen=True)
class AuditRecord:
    """The values of one audit.

    Attributes:
        epoch: The epoch of the weights, from 0; None if nothing tells.
        step: The step under which the loggers have its values.
        values: ``metric/rules`` to value; NaN where an audit before had one.
        seconds: How long the audit took, in the slowest process.
        samples: How many images were explained.
        weights: Which weights were explained: ``initial`` (before the first step), ``current``,
            ``averaged`` (another callback had exchanged them for validation), ``final`` (what the
            fit left behind), or the name of the checkpoint file that they are from.
        perturbation: What deletion did to patches; empty if nothing was deleted.
        peak_memory_gib: The most CUDA memory in use meanwhile, in GiB; None on other devices.
        deletion_rounding: How much a lower precision moved logits under deletion, as in
            `AuditResult`.
    """

    epoch: int | None
    step: int
    values: Mapping[str, float]
    seconds: float
    samples: int
    weights: str = "current"
    perturbation: str = ""
    peak_memory_gib: float | None = None
    deletion_rounding: float | None = None

    @property
    def when(self) -> str:
        """The weights that were explained, in words."""
        if self.weights in _ENDS:
            return _ENDS[self.weights]
        epoch = [] if self.epoch is None else [f"epoch {self.epoch}"]
        if self.weights == "current":
            return ", ".join([*epoch, f"step {self.step}"]) if epoch else "weights as given"
        return ", ".join([self.weights, *epoch])


_ENDS = {"initial": "at the start", "final": "at the end"}


@dataclass
class AuditHistory:
    """The audits so far.

    Attributes:
        records: Their values, oldest first.
        last: What the last one found.
    """

    records: list[AuditRecord] = field(default_factory=list)
    last: AuditResult = field(default_factory=AuditResult)

    def kept(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the values to be logged: NaN stays only where there was a value before."""
        known = {key for record in self.records for key in record.values}
        return {k: v for k, v in values.items() if not math.isnan(v) or k in known}

    def add(self, record: AuditRecord, result: AuditResult) -> None:
        """Go on with an audit."""
        self.records.append(record)
        self.last = result

    def changed(self, fingerprints: Mapping[Key, int]) -> set[Key]:
        """Return the keys under which other images are found now than in the last audit."""
        return self.last.changed(fingerprints)

    def probe_ids(self) -> list[int]:
        """Return the images of the last audit, by their places in the validation loader."""
        return list(dict.fromkeys(sample_id for sample_id, _ in self.last.fingerprints))

    def begin_anew(self) -> None:
        """Forget all audits."""
        self.records.clear()
        self.last = AuditResult()

    def state_dict(self) -> dict[str, Any]:
        """Return what goes into a checkpoint: plain values and tensors."""
        records = [asdict(record) for record in self.records]
        return {"records": records, "last": self.last.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.records[:] = [AuditRecord(**record) for record in state["records"]]
        self.last = AuditResult(**state["last"])
