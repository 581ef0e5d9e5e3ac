"""What an audit explains, how, and what it measures."""

from __future__ import annotations

from dataclasses import dataclass

from libragrad_lightning.attribution import Method, Reward, Target
from libragrad_lightning.backward import RuleSet, UnknownPolicy


@dataclass(frozen=True)
class AuditSettings:
    """What is explained, how, and what is measured.

    Attributes:
        rules: The rule sets that are compared.
        method: The attribution method.
        reward: What is differentiated.
        target: Which classes are explained, and scored under deletion.
        metrics: Names from `METRICS`.
        levels: Deletion levels.
        perturbation: What deletion does to patches, a name from `PERTURBATIONS`.
        batch_size: Images per explanation and rows per perturbed forward pass.
        unknown: What to do about operations without a role.
        backbone: Path of the submodule in which blocks are looked for, or None.
        blocks: Paths of the blocks, or None to find them.
        in_float32: Whether half-precision weights are explained in float32.
    """

    rules: tuple[RuleSet, ...]
    method: Method
    reward: Reward
    target: Target
    metrics: tuple[str, ...]
    levels: tuple[float, ...]
    perturbation: str
    batch_size: int
    unknown: UnknownPolicy
    backbone: str | None
    blocks: tuple[str, ...] | None
    in_float32: bool
