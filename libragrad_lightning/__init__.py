"""LibraGrad for PyTorch Lightning: audit what a vision model looks at, while it trains.

See `libragrad_lightning.callbacks.LibraGradAudit` for the one line to add to a Trainer.
"""

from libragrad_lightning._torchvision import repair_torchvision

repair_torchvision()

__version__ = "0.1.0"
