"""Whether compiled code may run, which watching would compile anew."""

from __future__ import annotations


def may_compile() -> bool:
    """Return whether compiled code may run in this process, which watching would compile anew."""
    from torch._dynamo.eval_frame import cached_backends

    return any(backend is not None for backend in cached_backends.values())
