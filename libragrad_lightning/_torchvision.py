"""Makes PyPI's torchvision importable beside a CPU-only torch.

PyPI's torchvision is a CUDA build. Beside a CPU-only torch its compiled library cannot be loaded,
so the operators ``nms`` and ``qnms`` are never declared, and the import of torchvision (and with it
of timm, torchmetrics and lightning) fails with ``operator torchvision::nms does not exist``.
Declaring the two schemas is enough: nothing here calls them. A sound torchvision is left alone.

It happens when this module is imported, so that it takes effect between other imports.
"""

from __future__ import annotations

import importlib
import sys

import torch

_SCHEMA = "{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: torch.library.Library | None = None


def repair_torchvision() -> bool:
    """Import torchvision, and declare its missing operators if that is why the import fails.

    Returns:
        Whether the repair was needed.

    Raises:
        RuntimeError: If torchvision fails to import for any other reason.
    """
    global _declared
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return False
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    else:
        return False
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    # The declarations live as long as the library object does, hence the module-level name.
    _declared = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        _declared.define(_SCHEMA.format(name=name))
    importlib.import_module("torchvision")
    return True


repair_torchvision()
