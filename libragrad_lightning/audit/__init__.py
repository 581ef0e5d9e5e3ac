"""An audit without a Trainer: what is asked, the probe set, the loop that explains and measures."""

from libragrad_lightning.audit.arguments import at_least, grouped, one_of
from libragrad_lightning.audit.batches import UnpackBatch, unpack_batch
from libragrad_lightning.audit.budget import TimeBudget
from libragrad_lightning.audit.chunks import ExplainedChunk, ExplainedTarget, ImageTargets
from libragrad_lightning.audit.compilation import may_compile
from libragrad_lightning.audit.completeness import images_added_up
from libragrad_lightning.audit.config import (
    AuditConfig,
    Deletion,
    audit_config,
    changed_settings,
    probe_request,
)
from libragrad_lightning.audit.errors import AuditError
from libragrad_lightning.audit.history import AuditHistory, AuditRecord
from libragrad_lightning.audit.image_scores import (
    MOST_SCORED,
    ImageScores,
    Statistic,
    is_known,
)
from libragrad_lightning.audit.keys import Key
from libragrad_lightning.audit.learning import ForwardFunction, Learned, SeenStep, Source
from libragrad_lightning.audit.measurement import reasons_for_missing
from libragrad_lightning.audit.metric_table import DEFAULT_METRICS, METRICS
from libragrad_lightning.audit.precision import as_weights_are, in_float32
from libragrad_lightning.audit.probe_set import ProbeGroup, ProbeSet, Shard, shard_of
from libragrad_lightning.audit.readings import Readings
from libragrad_lightning.audit.result import AuditResult, Failure, merged
from libragrad_lightning.audit.room import MOST_AT_ONCE
from libragrad_lightning.audit.run import AuditRun, AuditWatcher
from libragrad_lightning.audit.samples import NO_LABEL, Samples
from libragrad_lightning.audit.selection import Named, ProbeRequest, Selection
from libragrad_lightning.audit.trace import parameter_owners
from libragrad_lightning.audit.trees import copied
from libragrad_lightning.audit.watch import WatchedStep, watched_step

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "MOST_AT_ONCE",
    "MOST_SCORED",
    "NO_LABEL",
    "AuditConfig",
    "AuditError",
    "AuditHistory",
    "AuditRecord",
    "AuditResult",
    "AuditRun",
    "AuditWatcher",
    "Deletion",
    "ExplainedChunk",
    "ExplainedTarget",
    "Failure",
    "ForwardFunction",
    "ImageScores",
    "ImageTargets",
    "Key",
    "Learned",
    "Named",
    "ProbeGroup",
    "ProbeRequest",
    "ProbeSet",
    "Readings",
    "Samples",
    "SeenStep",
    "Selection",
    "Shard",
    "Source",
    "Statistic",
    "TimeBudget",
    "UnpackBatch",
    "WatchedStep",
    "as_weights_are",
    "at_least",
    "audit_config",
    "changed_settings",
    "copied",
    "grouped",
    "images_added_up",
    "in_float32",
    "is_known",
    "may_compile",
    "merged",
    "one_of",
    "parameter_owners",
    "probe_request",
    "reasons_for_missing",
    "shard_of",
    "unpack_batch",
    "watched_step",
]
