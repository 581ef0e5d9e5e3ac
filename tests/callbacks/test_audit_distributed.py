"""Two processes (gloo) audit their shards of the probe set and agree with one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
from pathlib import Path
import libragrad_lightning
import lightning as L
import torch
sys.path.insert(0, sys.argv[1])
from audit_cases import Classifier, audit, loader, trainer

torch.set_num_threads(1)
out, devices, count = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
L.seed_everything(3)
callback = audit(max_samples=24)
strategy = "ddp" if devices > 1 else "auto"
run = trainer(out, [callback], max_epochs=1, devices=devices, strategy=strategy)
module = Classifier()
run.validate(module, loader(count=count, batch_size=4), verbose=False)
values = {k: float(v) for k, v in run.callback_metrics.items() if k.startswith("audit/")}
(out / f"values_{devices}_{run.global_rank}.json").write_text(json.dumps(values))
"""


def run_script(tmp_path, devices, count):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    subprocess.run(
        [sys.executable, script, Path(__file__).parent, tmp_path, str(devices), str(count)],
        check=True,
        timeout=240,
        env=environment | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("count", [24, 23])
def test_two_processes_agree_with_one(tmp_path, count):
    for devices in (1, 2):
        run_script(tmp_path, devices, count)
    one, first, second = (
        json.loads((tmp_path / f"values_{name}.json").read_text()) for name in ("1_0", "2_0", "2_1")
    )
    assert first == second
    assert first.keys() == one.keys()
    if count % 2 == 0:  # the sampler repeats a sample to even out odd counts
        assert first == pytest.approx(one, rel=1e-5, abs=1e-6)
