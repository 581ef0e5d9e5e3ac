"""Is my model covered, and if its attributions do not add up, where are they lost?"""

from libragrad_lightning.diagnosis.coverage import CoverageReport, OperationUse, coverage
from libragrad_lightning.diagnosis.leaks import (
    IncompletenessReport,
    Leak,
    explain_incompleteness,
)

__all__ = [
    "CoverageReport",
    "IncompletenessReport",
    "Leak",
    "OperationUse",
    "coverage",
    "explain_incompleteness",
]
