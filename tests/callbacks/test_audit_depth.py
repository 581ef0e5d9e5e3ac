"""From the Trainer's hook to a gradient it is not far."""

import functools
import sys
from pathlib import Path

from audit_cases import Classifier, loader, quick_audit, trainer

import libragrad_lightning
from libragrad_lightning import callbacks
from libragrad_lightning.backward import gradient

HOOK = "on_validation_batch_end"
HOMES = [str(Path(package.__file__).parent) for package in (libragrad_lightning, callbacks)]


def frames_of_the_package():
    """Functions of the package that are running, innermost first, out to the hook."""
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(tuple(HOMES)):
            yield code.co_name
            if code.co_name == HOOK:
                return
        frame = frame.f_back


def test_a_gradient_is_few_calls_from_the_hook(tmp_path, monkeypatch):
    grad, stacks = gradient.grad, []

    @functools.wraps(grad)
    def counted(*args, **kwargs):
        stacks.append(["grad", *frames_of_the_package()])
        return grad(*args, **kwargs)

    for name, module in list(sys.modules.items()):
        if name.startswith(libragrad_lightning.__name__) and vars(module).get("grad") is grad:
            monkeypatch.setattr(module, "grad", counted)
    run = trainer(tmp_path, [quick_audit()], max_epochs=1, logger=False)
    run.fit(Classifier(), loader(count=16), loader(count=16))
    # Those that measure where tokens and images are, once in a run, are deeper.
    stacks = [stack for stack in stacks if stack[-1] == HOOK and "capture" in stack]
    assert stacks
    deepest = max(stacks, key=len)
    assert len(deepest) <= 10, deepest
