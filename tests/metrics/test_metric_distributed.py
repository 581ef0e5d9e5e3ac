import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from metric_cases import SPOILABLE, Case, draw, split
from several_processes import run_in_processes
from torch import Tensor

from libragrad_lightning.metrics import (
    CocoMaskAP,
    ConfidenceInterval,
    MaskIoU,
    PairedDifference,
    SegmentationAP,
)

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


def growing_results(batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the values of the metrics that keep samples, gathered over the processes there are."""
    coco, interval = CocoMaskAP(), ConfidenceInterval(MaskIoU())
    pair = PairedDifference(SegmentationAP())
    for batch in batches:
        maps, mask = batch["attribution"], batch["mask"]
        coco.update(maps, mask, batch["score"])
        interval.update(maps, mask)
        pair.update(
            {"attribution": maps, "mask": mask}, {"attribution": batch["reference"], "mask": mask}
        )
    found = {"coco": coco.compute()}
    for name, metric in (("interval", interval), ("pair", pair)):
        found |= {f"{name}_{bound}": value for bound, value in metric.compute().items()}
    return found


def growing_batches() -> dict[str, Tensor]:
    batch = draw(SAMPLES)
    batch["mask"][:, 2:5, 2:5] = True
    batch["attribution"] += 3 * batch["mask"]
    batch["attribution"][0] = 0
    return batch


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="The ``compute`` method")
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    found = {}
    for name, case in SPOILABLE.items():
        for shards, sizes in SHARDS.items():
            batches = split(case.spoilt(SAMPLES), *sizes[0], *sizes[1])
            own = batches[: len(sizes[0])] if rank == 0 else batches[len(sizes[0]) :]
            found[name, shards] = results(case, own)
    for shards, sizes in SHARDS.items():
        batches = split(growing_batches(), *sizes[0], *sizes[1])
        own = batches[: len(sizes[0])] if rank == 0 else batches[len(sizes[0]) :]
        found["growing", shards] = growing_results(own)
    torch.save(found, Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    # One test for all metrics, because starting the processes takes longer than all their work.
    growing = growing_results([growing_batches()])
    assert 0 < growing["coco"] < 1
    run_in_processes(process, tmp_path)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"rank{rank}.pt")
        assert len(found) == (len(SPOILABLE) + 1) * len(SHARDS)
        for shards in SHARDS:
            for name, value in found.pop(("growing", shards)).items():
                assert (value.double() - growing[name].double()).abs() <= 1e-12, (
                    name,
                    shards,
                    rank,
                )
        for (name, shards), values in found.items():
            # The first sample is invalid and goes to the first process that sees any.
            local = {"uneven": (4, 2), "one_empty": (0, 6)}[shards][rank]
            assert values["local_samples"] == local, (name, shards, rank)
            expected = results(SPOILABLE[name], [SPOILABLE[name].spoilt(SAMPLES)])
            assert (expected["num_samples"], expected["num_invalid"]) == (SAMPLES - 1, 1)
            for key in expected.keys() - {"local_samples"}:
                error = (values[key] - expected[key]).abs().max()
                assert error <= 1e-12, (name, shards, rank, key)
