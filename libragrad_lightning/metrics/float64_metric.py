"""What all metrics of this package have in common: wide states, and lists that can be empty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from libragrad_lightning.metrics.functional.precision import accumulation_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor, nn


class Float64Metric(Metric):
    """A metric whose states stay wide whatever dtype the module is converted to.

    Args:
        kwargs: Further arguments of ``torchmetrics.Metric``.

    Attributes:
        num_samples: State: number of samples that the value rests on.
        num_invalid: State: number of samples left out because a value was not finite.
    """

    is_differentiable: bool = False
    full_state_update: bool = False

    num_samples: Tensor
    num_invalid: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._row_likes: dict[str, Tensor] = {}
        self.add_count("num_samples")
        self.add_count("num_invalid")

    def add_count(self, name: str) -> None:
        """Add a state that counts samples."""
        self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def add_rows(self, name: str, like: Tensor) -> None:
        """Add a state that grows by rows.

        Args:
            name: Name of the state, a list of tensors [n, ...].
            like: A tensor [0, ...] of the rows' shape and dtype.
        """
        self.add_state(name, [], dist_reduce_fx="cat")
        self._row_likes[name] = like

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the samples of another metric of the same kind and settings.

        Args:
            incoming_state: The metric, or its ``metric_state``.

        Raises:
            ValueError: If it is of another kind.
        """
        super().merge_state(incoming_state)
        self._states_changed()

    def plot(
        self, val: Tensor | Sequence[Tensor] | None = None, ax: Axes | None = None
    ) -> tuple[Figure | None, Any]:
        """Draw one or several values of the metric with matplotlib.

        Args:
            val: Results of ``forward`` or ``compute``; by default the current value.
            ax: Axes to draw on; by default a new figure's.

        Returns:
            The figure and its axes.
        """
        return self._plot(val, ax)

    def _states_changed(self) -> None:
        """Forget the value that was computed of other states."""
        self._computed = None
        self._update_count = max(1, self._update_count)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        loads = any(prefix + name in state_dict for name in self._defaults)
        super()._load_from_state_dict(state_dict, prefix, *args)
        for name in self._row_likes:
            # The list of the dictionary would grow with the state.
            setattr(self, name, [self._rows(name)])
        if loads:
            self._states_changed()

    def _rows(self, name: str) -> Tensor:
        """Return all rows of a state, of all processes while they are gathered."""
        rows = getattr(self, name)
        return dim_zero_cat(rows) if len(rows) else self._no_rows(name)

    def _no_rows(self, name: str) -> Tensor:
        like = self._row_likes[name]
        wide = accumulation_dtype(self.device) if like.is_floating_point() else like.dtype
        return like.to(self.device, wide)

    def _gathered(self) -> AbstractContextManager[None]:
        return self.sync_context(
            dist_sync_fn=self.dist_sync_fn,
            should_sync=self._to_sync,
            should_unsync=self._should_unsync,
        )

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        # An empty list would be gathered with a shape and dtype that other processes do not have.
        for name in self._row_likes:
            setattr(self, name, [self._rows(name)])
        super()._sync_dist(*args, **kwargs)

    def _apply(
        self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ""
    ) -> nn.Module:
        device = fn(torch.empty(0, device=self.device)).device
        dtype = accumulation_dtype(device)

        def move(state: Tensor) -> Tensor:
            return state.to(device, dtype if state.is_floating_point() else None)

        return super()._apply(move, exclude_state)
