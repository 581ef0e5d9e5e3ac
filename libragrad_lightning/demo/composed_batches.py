"""Training batches that are composed as they are loaded."""

from collections.abc import Callable
from typing import Any

from torch.utils.data import Dataset


class ComposedBatches(Dataset[dict[str, Any]]):
    """Whole batches by their numbers in an epoch, for a `DataLoader` with `batch_size=None`.

    Args:
        count: How many batches an epoch has.
        batch: Composes one, given its number.
    """

    def __init__(self, count: int, batch: Callable[[int], dict[str, Any]]) -> None:
        self._count, self._batch = count, batch

    def __len__(self) -> int:
        """Return the number of batches."""
        return self._count

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Compose a batch.

        Args:
            number: Its number, 0 to N - 1.

        Raises:
            IndexError: If there is no such batch.
        """
        if not 0 <= number < self._count:
            raise IndexError(number)
        return self._batch(number)
