import libragrad_lightning  # noqa: F401  # makes torchvision importable before torchmetrics asks for it
