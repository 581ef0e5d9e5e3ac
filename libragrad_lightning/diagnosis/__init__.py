"""Is my model covered, where are attributions lost, and do maps show what was learned?"""

from libragrad_lightning.diagnosis.coverage import CoverageReport, OperationUse, coverage
from libragrad_lightning.diagnosis.leaks import (
    IncompletenessReport,
    Leak,
    explain_incompleteness,
)
from libragrad_lightning.diagnosis.operation_checks import OperationCheck, check_operations
from libragrad_lightning.diagnosis.randomization import (
    RandomizationReport,
    RandomizedStage,
    Spread,
    randomization_check,
)

__all__ = [
    "CoverageReport",
    "IncompletenessReport",
    "Leak",
    "OperationCheck",
    "OperationUse",
    "RandomizationReport",
    "RandomizedStage",
    "Spread",
    "check_operations",
    "coverage",
    "explain_incompleteness",
    "randomization_check",
]
