"""``python -m libragrad_lightning`` is the same as the command ``libragrad``."""

from libragrad_lightning.cli import main

if __name__ == "__main__":
    main()
