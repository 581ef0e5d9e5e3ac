"""``libragrad doctor``: whether this installation computes what it should."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from libragrad_lightning.commands.models import default_device
from libragrad_lightning.diagnosis import OperationCheck, check_operations
from libragrad_lightning.parsing import SentenceParser

PACKAGES = (
    "libragrad-lightning",
    "torch",
    "lightning",
    "pytorch-lightning",
    "timm",
    "torchvision",
    "torchmetrics",
    "tensorboard",
    "pycocotools",
    "jsonargparse",
)

_KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}


def run(arguments: Sequence[str]) -> None:
    """Run the command with the arguments behind its name."""
    parser = SentenceParser(prog="libragrad doctor", description=__doc__)
    parser.parse_args(list(arguments))
    diagnose(default_device())


def diagnose(device: torch.device) -> None:
    """Print versions, device and attention kernels, and check every operation on the device.

    Args:
        device: Where operations are checked.

    Raises:
        ValueError: If one of them is not explained as its rule says, or its node is not known.
    """
    print(f"python {platform.python_version()}, {platform.platform()}")
    print(", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name))))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    print(f"device {device.type} ({name}), attention kernels: {', '.join(_kernels(device))}")
    checks = list(check_operations(device=device))
    met = {name for check in checks for name in check.nodes}
    print(f"{len(checks)} operations checked against their rules, {len(met)} kinds of nodes")
    failed = [check for check in checks if not check.passes]
    for check in failed:
        print(f"  {check.name}: {_finding(check)}")
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(checks)} operations are not explained as they should be with "
            f"torch {torch.__version__}, so maps of models that use them are wrong; install a "
            "release of torch that docs/versions.md lists."
        )
    print("all of them are as they should be")


def _finding(check: OperationCheck) -> str:
    return check.reason or f"error {check.error:.1e} in {', '.join(check.nodes)}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _kernels(device: torch.device) -> list[str]:
    """Return the kernels of attention that run on a device, in half precision where they must."""
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    query = torch.zeros(1, 1, 8, 32, dtype=dtype, device=device)
    return [name for name, kernel in _KERNELS.items() if _runs(kernel, query)]


def _runs(kernel: SDPBackend, query: torch.Tensor) -> bool:
    try:
        with sdpa_kernel(kernel):
            torch.nn.functional.scaled_dot_product_attention(query, query, query)
    except RuntimeError:
        return False
    return True
