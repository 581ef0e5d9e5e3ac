"""LibraGrad for PyTorch Lightning: audit what a vision model looks at, while it trains.

See `libragrad_lightning.callbacks.LibraGradAudit` for the one line to add to a Trainer, and
`explain` and `compare` for one call outside of training.
"""

from libragrad_lightning import _torchvision  # noqa: F401  (first: what follows imports torchvision)
from libragrad_lightning.attribution.comparison import Comparison, compare
from libragrad_lightning.attribution.explain import explain
from libragrad_lightning.attribution.explanation import Explanation

__all__ = ["Comparison", "Explanation", "compare", "explain"]

__version__ = "0.2.0"
