import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from metric_cases import CASES, Case, split
from torch import Tensor, multiprocessing

torch.set_num_threads(1)
SAMPLES = 7
# Sizes of the batches that each of the two processes sees.
SHARDS = {"uneven": ((1, 4), (2,)), "one_empty": ((), (3, 4))}


def results(case: Case, batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return all that a metric can be asked for, gathered over the processes there are."""
    metric = case.make()
    for batch in batches:
        metric.update(**batch)
    found = {"value": metric.compute(), "local_samples": metric.num_samples.clone()}
    if hasattr(metric, "curve"):
        found["curve"] = metric.curve()
    with metric.sync_context():
        found |= {name: getattr(metric, name).clone() for name in ("num_samples", "num_invalid")}
    return found


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="The ``compute`` method")
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    found = {}
    for name, case in CASES.items():
        for shards, sizes in SHARDS.items():
            batches = split(case.spoilt(SAMPLES), *sizes[0], *sizes[1])
            own = batches[: len(sizes[0])] if rank == 0 else batches[len(sizes[0]) :]
            found[name, shards] = results(case, own)
    torch.save(found, Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    # One test for all metrics, because starting the processes takes longer than all their work.
    multiprocessing.spawn(process, args=(str(tmp_path),), nprocs=2)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"rank{rank}.pt")
        assert len(found) == len(CASES) * len(SHARDS)
        for (name, shards), values in found.items():
            # The first sample is invalid and goes to the first process that sees any.
            local = {"uneven": (4, 2), "one_empty": (0, 6)}[shards][rank]
            assert values["local_samples"] == local, (name, shards, rank)
            expected = results(CASES[name], [CASES[name].spoilt(SAMPLES)])
            assert (expected["num_samples"], expected["num_invalid"]) == (SAMPLES - 1, 1)
            for key in expected.keys() - {"local_samples"}:
                error = (values[key] - expected[key]).abs().max()
                assert error <= 1e-12, (name, shards, rank, key)
