"""Watches one validation step: which modules it shows images to, and what it does with the scores.

Nothing is changed by it, not by a bit. Hooks stand on modules only while the step runs. While a
module works, no function is watched inside of it, because a `TorchFunctionMode` would switch off
fused kernels of `torch.nn`; for the same reason no hook stands inside of its fused layers. Compiled
code would get a new graph: a step that may run some is to be watched where it runs eagerly.

What is kept of tensors are copies, since the step may go on to overwrite them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch._dynamo import OptimizedModule
from torch.overrides import TorchFunctionMode, _get_current_function_mode

from libragrad_lightning.audit.functions import LOSSES, READINGS, SIMILARITIES
from libragrad_lightning.audit.trace import Trace
from libragrad_lightning.audit.trees import Way, copied, tensors
from libragrad_lightning.models import Origins, reduces_precision, submodule

_COLORS = (1, 3, 4)
_OPAQUE = (OptimizedModule, nn.TransformerEncoderLayer, torch.jit.ScriptModule)
"""Modules inside of which no hook may stand."""
_UNHOOKED = (nn.TransformerEncoderLayer,)
"""Modules on which none may stand either."""
_FUSED = (nn.TransformerEncoder, nn.Transformer, nn.MultiheadAttention)
"""Modules inside of which no function may be watched, whatever they are shown."""


@dataclass(frozen=True)
class ImageCall:
    """A call of a module that was shown images.

    Attributes:
        path: The path of the module; empty for the root.
        module: The module.
        arguments: Copies of its arguments, ``(args, kwargs)``.
        images: The ways to the images in them, and the images.
        output: What it returned.
        returned: The tensors in it, by the ways to them.
        scores: Copies of those that may be scores, by the ways to them.
        reduced: Whether it ran in reduced precision.
    """

    path: str
    module: nn.Module
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    images: tuple[tuple[Way, Tensor], ...]
    output: Any
    returned: Mapping[Way, Tensor]
    scores: Mapping[Way, Tensor]
    reduced: bool


@dataclass(frozen=True)
class Use:
    """A function that was given a tensor.

    Attributes:
        name: The name of the function.
        scores: Its first tensor, itself.
        values: A copy of it.
        labels: A copy of its second argument, for a loss.
        target: That argument, itself.
        position: How many functions the trace had remembered.
    """

    name: str
    scores: Tensor
    values: Tensor
    labels: Tensor | None
    target: Tensor | None
    position: int


@dataclass
class WatchedStep:
    """What was seen of a step.

    Attributes:
        batch: The batch that the step was given.
        calls: The outermost calls of modules that were shown images.
        uses: What functions were given between these calls.
        origins: From which tensors scores were made between these calls.
        trace: How they were made.
        error: What went wrong while watching, or None.
        reduced: Whether modules compute in reduced precision without autocast.
    """

    batch: Any
    calls: list[ImageCall] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    origins: Origins = field(default_factory=Origins)
    trace: Trace = field(default_factory=Trace)
    error: Exception | None = None
    reduced: bool = False

    @contextmanager
    def unharmed(self) -> Iterator[None]:
        """Keep what goes wrong while watching from the step."""
        try:
            yield
        except Exception as error:
            self.error = self.error or error


@contextmanager
def watched_step(root: nn.Module, batch: Any, only: str | None = None) -> Iterator[WatchedStep]:
    """Watch what happens inside of the context.

    Args:
        root: The module whose step runs.
        batch: What the step is given.
        only: The path of the only module whose calls are kept, also inside of others.
    """
    step = WatchedStep(batch, reduced=reduces_precision(root))
    step.trace.know_parameters(root.parameters())
    step.trace.know_batch(batch)
    functions = _FunctionWatch(step)
    outermost: list[ImageCall] = step.calls if only is None else []
    watch = _CallWatch(step, outermost, functions)
    with ExitStack() as stack:
        for path, module in _watchable(root):
            stack.enter_context(watch.on(path, module))
        if only is not None:
            named = _CallWatch(step, step.calls, None)
            stack.enter_context(named.on(only, submodule(root, only, "forward")))
        stack.enter_context(functions)
        yield step


class _FunctionWatch(TorchFunctionMode):
    """Remembers what losses and other readers of scores are given, and where it comes from."""

    def __init__(self, step: WatchedStep) -> None:
        super().__init__()
        self._step, self._uses = step, step.uses
        self._origins, self._trace = step.origins, step.trace
        self._paused = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in LOSSES or name in READINGS or name in SIMILARITIES:
            with self._step.unharmed():
                self._note(name, args, kwargs)
        result = func(*args, **kwargs)
        with self._step.unharmed():
            self._origins.add(name, args, result)
            self._trace.note(func, args, kwargs, result)
        return result

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let code run as if nobody watched."""
        on_top = _get_current_function_mode() is self
        self._paused += 1
        if on_top:
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            if on_top:
                self.__enter__()  # type: ignore[no-untyped-call]
            self._paused -= 1

    def _note(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        given = [*args, *kwargs.values()]
        scores = args[0] if args else kwargs.get("input")
        target = kwargs.get("target", given[1] if len(given) > 1 else None)
        if not isinstance(scores, Tensor) or not (scores.is_floating_point() or name in LOSSES):
            return
        target = target if name in LOSSES and isinstance(target, Tensor) else None
        labels = None if target is None else copied(target)
        self._uses.append(Use(name, scores, copied(scores), labels, target, self._trace.length))


class _CallWatch:
    """Remembers the outermost calls that are shown images."""

    def __init__(
        self, step: WatchedStep, calls: list[ImageCall], functions: _FunctionWatch | None
    ) -> None:
        self._step, self._trace = step, step.trace
        self._calls, self._functions = calls, functions
        self._channels = image_channels(step.batch)
        self._running: tuple[nn.Module, Any, ExitStack] | None = None

    @contextmanager
    def on(self, path: str, module: nn.Module) -> Iterator[None]:
        """Watch a module."""
        before = module.register_forward_pre_hook(self._begin, with_kwargs=True, prepend=True)
        after = module.register_forward_hook(
            lambda m, args, output: self._end(path, m, args, output), always_call=True
        )
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._running is not None:
            return
        with self._step.unharmed():
            images = images_in((args, kwargs), self._channels)
            if not images and not isinstance(module, _FUSED):
                return
            stack = ExitStack()
            if self._functions is not None:
                stack.enter_context(self._functions.paused())
            # Set before anything else can go wrong: it is closed when the module is done.
            self._running = (module, None, stack)
            if images:
                arguments = copied((args, dict(kwargs)))
                self._running = (module, (arguments, tuple(w for w, _ in images)), stack)

    def _end(self, path: str, module: nn.Module, args: Any, output: Any) -> None:
        if self._running is None or self._running[0] is not module:
            return
        _, seen, stack = self._running
        self._running = None
        with self._step.unharmed():
            if seen is not None:
                self._keep(path, module, output, *seen)
        stack.close()
        with self._step.unharmed():
            if seen is None:
                self._trace.pass_on(args, output)
            else:
                self._trace.begin_at(output)

    def _keep(
        self, path: str, module: nn.Module, output: Any, arguments: Any, ways: Sequence[Way]
    ) -> None:
        copies = dict(tensors(arguments))
        images = tuple((way, copies[way]) for way in ways)
        _, first = images[0]
        returned = dict(tensors(output))
        scores = {w: copied(t) for w, t in returned.items() if may_be_scores(t, len(first))}
        reduced = self._step.reduced or torch.is_autocast_enabled(first.device.type)
        self._calls.append(
            ImageCall(path, module, arguments, images, output, returned, scores, reduced)
        )


def may_be_scores(tensor: Tensor, rows: int) -> bool:
    """Return whether a tensor has the form `[B]`, `[B, C]` or `[B, C, 1, 1]` of scores."""
    return (
        tensor.is_floating_point()
        and tensor.dim() > 0
        and len(tensor) == rows
        and all(side == 1 for side in tensor.shape[2:])
    )


def images_in(tree: Any, channels: Sequence[int] = _COLORS) -> list[tuple[Way, Tensor]]:
    """Return the tensors `[B, C, H, W]` of a nested object whose channels are those of images."""
    return [
        (way, t)
        for way, t in tensors(tree)
        if not t.is_nested
        and t.dim() == 4
        and t.shape[1] in channels
        and not t.is_complex()
        and t.dtype not in (torch.bool, torch.int64)
        and not is_functorch_wrapped_tensor(t)
    ]


def image_channels(batch: Any) -> tuple[int, ...]:
    """Return how many channels images may have: those of colors, or as many as in a batch."""
    maps = [t for _, t in tensors(batch) if not t.is_nested and t.dim() == 4]
    seen = [t.shape[1] if t.shape[1] <= t.shape[-1] else t.shape[-1] for t in maps]
    return tuple(dict.fromkeys([*_COLORS, *seen]))


def _watchable(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    if not isinstance(module, _UNHOOKED):
        yield path, module
    if isinstance(module, _OPAQUE):
        return
    for name, child in module.named_children():
        yield from _watchable(child, f"{path}.{name}" if path else name)
