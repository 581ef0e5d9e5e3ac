"""Watches one validation step: which modules it shows images to, and what it does with the scores.

Nothing is changed by it, not by a bit. Hooks stand on modules only while the step runs. While a
module works, no function is watched inside of it, because a `TorchFunctionMode` would switch off
fused kernels of `torch.nn`; for the same reason no hook stands inside of its fused layers. Compiled
code would get a new graph: a step that may run some is to be watched where it runs eagerly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.overrides import TorchFunctionMode, _get_current_function_mode

from libragrad_lightning.audit.functions import LOSSES, READINGS, SIMILARITIES
from libragrad_lightning.audit.trees import Way, tensors
from libragrad_lightning.models import Origins, submodule

_COLORS = (1, 3, 4)
_OPAQUE = (OptimizedModule, nn.TransformerEncoderLayer, torch.jit.ScriptModule)
"""Modules inside of which no hook may stand."""
_FUSED = (nn.TransformerEncoderLayer,)
"""Modules on which none may stand either."""


@dataclass(frozen=True)
class ImageCall:
    """A call of a module that was shown images.

    Attributes:
        path: The path of the module; empty for the root.
        module: The module.
        occurrence: How many such calls the module had before, in the step.
        arguments: Its arguments, ``(args, kwargs)``.
        images: The ways to the images in them, and the images.
        output: What it returned.
    """

    path: str
    module: nn.Module
    occurrence: int
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    images: tuple[tuple[Way, Tensor], ...]
    output: Any


@dataclass(frozen=True)
class Use:
    """A function that was given a tensor.

    Attributes:
        name: The name of the function.
        scores: Its first tensor.
        labels: Its second argument, for a loss.
        number: How many uses of watched functions there were before.
    """

    name: str
    scores: Tensor
    labels: Tensor | None
    number: int


@dataclass
class WatchedStep:
    """What was seen of a step.

    Attributes:
        batch: The batch that the step was given, as nested as it was.
        calls: The outermost calls of modules that were shown images.
        uses: What functions were given between these calls.
        origins: From which tensors scores were made between these calls.
        reduced: Whether the step ran in reduced precision.
    """

    batch: Any
    calls: list[ImageCall] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    origins: Origins = field(default_factory=Origins)
    reduced: bool = False


@contextmanager
def watched_step(
    root: nn.Module,
    batch: Any,
    on_use: Callable[[Use], None] | None = None,
    only: str | None = None,
) -> Iterator[WatchedStep]:
    """Watch what happens inside of the context.

    Args:
        root: The module whose step runs.
        batch: What the step is given.
        on_use: Called with every use of a watched function.
        only: The path of the only module whose calls are kept, also inside of others.
    """
    step = WatchedStep(batch)
    functions = FunctionWatch(step, on_use)
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


class FunctionWatch(TorchFunctionMode):
    """Remembers what losses and other readers of scores are given.

    Args:
        step: Where to keep it.
        on_use: Called with every use.
    """

    def __init__(self, step: WatchedStep, on_use: Callable[[Use], None] | None = None) -> None:
        super().__init__()
        self._uses, self._origins, self._on_use = step.uses, step.origins, on_use
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
            self._note(name, args, kwargs)
        result = func(*args, **kwargs)
        self._origins.add(name, args, result)
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
        labels = kwargs.get("target", given[1] if len(given) > 1 else None)
        if not isinstance(scores, Tensor) or not scores.is_floating_point():
            return
        labels = labels if name in LOSSES and isinstance(labels, Tensor) else None
        use = Use(name, scores, labels, len(self._uses))
        self._uses.append(use)
        if self._on_use is not None:
            self._on_use(use)


class _CallWatch:
    """Remembers the outermost calls that are shown images."""

    def __init__(
        self, step: WatchedStep, calls: list[ImageCall], functions: FunctionWatch | None
    ) -> None:
        self._step, self._calls, self._functions = step, calls, functions
        self._channels = image_channels(step.batch)
        self._running: tuple[nn.Module, Any, ExitStack] | None = None

    @contextmanager
    def on(self, path: str, module: nn.Module) -> Iterator[None]:
        """Watch a module."""
        before = module.register_forward_pre_hook(self._begin, with_kwargs=True, prepend=True)
        after = module.register_forward_hook(
            lambda m, _, output: self._end(path, m, output), always_call=True
        )
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._running is not None:
            return
        images = images_in((args, kwargs), self._channels)
        if not images:
            return
        stack = ExitStack()
        if self._functions is not None:
            stack.enter_context(self._functions.paused())
        self._running = (module, ((args, dict(kwargs)), tuple(images)), stack)

    def _end(self, path: str, module: nn.Module, output: Any) -> None:
        if self._running is None or self._running[0] is not module:
            return
        _, (arguments, images), stack = self._running
        self._running = None
        stack.close()
        before = sum(call.module is module for call in self._calls)
        step, device = self._step, images[0][1].device.type
        step.reduced |= torch.is_autocast_enabled(device)
        self._calls.append(ImageCall(path, module, before, arguments, images, output))


def images_in(tree: Any, channels: Sequence[int] = _COLORS) -> list[tuple[Way, Tensor]]:
    """Return the tensors `[B, C, H, W]` of a nested object whose channels are those of images."""
    return [
        (way, t)
        for way, t in tensors(tree)
        if t.dim() == 4
        and t.shape[1] in channels
        and not t.is_complex()
        and t.dtype not in (torch.bool, torch.int64)
    ]


def image_channels(batch: Any) -> tuple[int, ...]:
    """Return how many channels images may have: those of colors, or as many as in a batch."""
    maps = [t for _, t in tensors(batch) if t.dim() == 4]
    seen = [t.shape[1] if t.shape[1] <= t.shape[-1] else t.shape[-1] for t in maps]
    return tuple(dict.fromkeys([*_COLORS, *seen]))


def _watchable(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    if not isinstance(module, _FUSED):
        yield path, module
    if isinstance(module, _OPAQUE):
        return
    for name, child in module.named_children():
        yield from _watchable(child, f"{path}.{name}" if path else name)


def may_compile(root: nn.Module, step: Any = None) -> bool:
    """Return whether compiled code may run in a step, which watching would compile anew.

    Args:
        root: The module whose step it is.
        step: The step; what it may call by a global name is looked at too.
    """
    from torch._dynamo.utils import counters

    function = getattr(step, "__func__", step)
    known = [*getattr(function, "__globals__", {}).values(), *vars(type(root)).values()]
    for module in root.modules():
        known += [module, *vars(module).values()]
    return counters["frames"]["total"] > 0 or any(_is_compiled(value) for value in known)


def _is_compiled(value: Any) -> bool:
    if isinstance(value, nn.Module):
        return isinstance(value, OptimizedModule) or (
            vars(value).get("_compiled_call_impl") is not None
        )
    return callable(value) and hasattr(value, "_torchdynamo_orig_callable")
