"""Looks at a model before it is audited: does every operation have a gradient rule?"""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from libragrad_lightning.audit import AuditConfig, AuditError
from libragrad_lightning.diagnosis import CoverageReport, OperationUse, coverage
from libragrad_lightning.models import TokenModel


def checked_coverage(
    module: nn.Module, tokens: TokenModel, images: Tensor, config: AuditConfig
) -> list[CoverageReport]:
    """Return the coverage of the explained path under every rule set.

    Args:
        module: The module that is audited.
        tokens: Where its tokens are.
        images: `[B, C, H, W]`; the first one is looked at.
        config: Its `unknown` decides what to do about operations without a role: raise, warn once,
            or only mark them in the reports.

    Raises:
        AuditError: If there are such operations and `unknown` is ``"error"``.
    """
    reports = [coverage(module, images[:1], rules=rules, tokens=tokens) for rules in config.rules]
    unknown = {use.operation: use for report in reports for use in report.unknown}
    if unknown and config.unknown == "error":
        raise AuditError(
            f"{_sentence(list(unknown.values()))}, or pass `unknown='warn'` or `'ignore'` to keep "
            "their ordinary gradients."
        )
    if unknown and config.unknown == "warn":
        rank_zero_warn(f"{_sentence(list(unknown.values()))}; their ordinary gradients are kept.")
    return reports


def _sentence(unknown: Sequence[OperationUse]) -> str:
    listed = "; ".join(f"{use.operation} in {', '.join(use.places)}" for use in unknown)
    return (
        f"LibraGradAudit meets operations without a gradient rule ({listed}); pass `rules` whose "
        "vocabulary gives them a role (`vocabulary.extended({name: operation})`, such as "
        "`Linear()` or `Activation(gate)`)"
    )
