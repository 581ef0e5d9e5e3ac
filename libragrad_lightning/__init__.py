"""LibraGrad for PyTorch Lightning: audit what a vision model looks at, while it trains.

See `libragrad_lightning.callbacks.LibraGradAudit` for the one line to add to a Trainer, and
`explain` for one call outside of training.
"""

from libragrad_lightning._torchvision import repair_torchvision

repair_torchvision()

# isort: split
from libragrad_lightning.attribution.explain import explain  # noqa: E402
from libragrad_lightning.attribution.explanation import Explanation  # noqa: E402

__all__ = ["Explanation", "explain"]

__version__ = "0.1.0"
