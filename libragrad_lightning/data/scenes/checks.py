"""Checks of what scenes are composed of."""

from libragrad_lightning.data.scenes.composition import Composition
from libragrad_lightning.data.scenes.cutouts import Shares


def check_composition(composition: Composition, size_argument: str = "object_size") -> None:
    """Check the numbers of a composition.

    Args:
        composition: The composition.
        size_argument: Name of the argument that its sizes come from.

    Raises:
        ValueError: If one is outside its range.
    """
    smallest, largest = composition.object_size
    if not 0 < smallest <= largest <= 1:
        raise ValueError(
            f"{size_argument} must hold two rising shares above 0 and up to 1, but is "
            f"{composition.object_size}; change {size_argument}."
        )
    if composition.num_objects not in (1, 2):
        raise ValueError(
            f"A scene has 1 or 2 objects, not {composition.num_objects}; change num_objects."
        )
    if not 0 <= composition.shortcut <= 1:
        raise ValueError(
            f"shortcut must lie between 0 and 1, but is {composition.shortcut}; change shortcut."
        )


def check_shares(shares: Shares) -> None:
    """Check how much is held out.

    Raises:
        ValueError: If nothing is, or nothing is left for training.
    """
    if not (shares.val > 0 and shares.test >= 0 and shares.val + shares.test < 1):
        raise ValueError(
            f"val_share must be above 0, test_share at least 0, and both below 1 together, but "
            f"they are {shares.val} and {shares.test}; change val_share or test_share."
        )
