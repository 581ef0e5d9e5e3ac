"""Finds the scores behind a final softmax, log-softmax or sigmoid.

Under LibraGrad a bounded gate passes no gradient on (Mehri et al. 2025, theorem 5), so a model that
returns probabilities would get maps of zeros that add up to nothing. What is explained are the
scores from which the probabilities are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

SQUASHING = frozenset(
    "softmax log_softmax sigmoid sigmoid_ expit log_sigmoid logsigmoid hardsigmoid softplus exp "
    "softmin".split()
)
"""Functions that map scores to what has no gradient of its own under LibraGrad."""

_PASSED_ON = frozenset(
    "squeeze unsqueeze view reshape flatten float double half bfloat16 to type type_as cpu cuda "
    "detach clone contiguous log clamp clamp_min __getitem__ select".split()
)
"""Functions after which the scores are still the same, apart from their form or a logarithm."""


@dataclass
class Origins:
    """From which tensor the scores in another one were made."""

    _made: dict[int, tuple[str, Tensor, Tensor]] = field(default_factory=dict)

    def add(self, name: str, arguments: Sequence[Any], result: Any) -> None:
        """Remember a call, if it passes scores on or squashes them."""
        source = arguments[0] if arguments else None
        if (
            (name in SQUASHING or name in _PASSED_ON)
            and isinstance(source, Tensor)
            and isinstance(result, Tensor)
            and result is not source
            and result.numel() == source.numel()
            and all(side == 1 for side in result.shape[2:])
        ):
            self._made[id(result)] = (name, source, result)

    def trail(self, tensor: Tensor) -> list[tuple[str, Tensor]]:
        """Return the tensor, then those that it was made from, each with the function it enters.

        The tensor itself enters none, so its name is empty.
        """
        found = [("", tensor)]
        while (made := self._made.get(id(found[-1][1]))) is not None and made[2] is found[-1][1]:
            found.append(made[:2])
        return found

    def unsquashed(self, tensor: Tensor) -> tuple[Tensor, str]:
        """Return the scores behind the last functions, and the first that squashes them.

        Returns:
            The tensor itself and an empty name if nothing squashes it.
        """
        squashed = [(name, source) for name, source in self.trail(tensor) if name in SQUASHING]
        name, source = squashed[-1] if squashed else ("", tensor)
        return (-source if name == "softmin" else source), name


class _Observer(TorchFunctionMode):
    """Remembers the origins of small tensors."""

    def __init__(self, origins: Origins) -> None:
        super().__init__()
        self._origins = origins

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._origins.add(getattr(func, "__name__", ""), args, result)
        return result


def called_with_origins(call: Callable[[], Any]) -> tuple[Any, Origins]:
    """Call a function, and return where the scores in its result come from too."""
    origins = Origins()
    with _Observer(origins):
        return call(), origins
