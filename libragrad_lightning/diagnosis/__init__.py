"""Is my model covered, and if its attributions do not add up, where are they lost?"""

from libragrad_lightning.diagnosis.coverage import CoverageReport, OperationUse, coverage
from libragrad_lightning.diagnosis.leaks import (
    IncompletenessReport,
    Leak,
    explain_incompleteness,
)
from libragrad_lightning.diagnosis.operation_checks import OperationCheck, check_operations

__all__ = [
    "CoverageReport",
    "IncompletenessReport",
    "Leak",
    "OperationCheck",
    "OperationUse",
    "check_operations",
    "coverage",
    "explain_incompleteness",
]
