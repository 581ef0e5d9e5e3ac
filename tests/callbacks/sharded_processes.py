"""Runs audits in two processes (gloo) that share the weights, and writes what they found."""

import os
from datetime import timedelta
from pathlib import Path

import libragrad_lightning  # noqa: F401  (repairs torchvision in processes without a conftest)

# isort: split
import lightning as L
import timm
import torch
import torch.distributed as dist
from audit_cases import Classifier, digest, loader, quick_audit, trainer
from audit_processes import METRICS, PROBES, Write
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch.distributed.fsdp import (
    FSDPModule,
    FullyShardedDataParallel,
    MixedPrecision,
    MixedPrecisionPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor

from libragrad_lightning.audit import AuditRun
from libragrad_lightning.models.sharding import parameter_groups

BLOCK = timm.models.vision_transformer.Block


class Sharded(Classifier):
    """Spread by FSDP2 where there are several processes."""

    policy = MixedPrecisionPolicy()

    def configure_model(self):
        if self.device_mesh is None or isinstance(self.net, FSDPModule):
            return
        mesh = self.device_mesh["data_parallel"]
        fully_shard(self.norm, mesh=mesh)
        for part in (*self.net.blocks, self.net):
            fully_shard(part, mesh=mesh, mp_policy=self.policy)


class Half(Sharded):
    """Computes in half precision, and returns scores of full precision."""

    policy = MixedPrecisionPolicy(torch.bfloat16)

    def forward(self, images):
        return super().forward(images).float()


class Compiling(Classifier):
    """Its step is watched when it runs again, since compiled code might run in it."""

    def __init__(self):
        super().__init__()
        self._compiler_ctx = {"original_validation_step": self.validation_step}


class Wrapping(FSDPStrategy):
    """FSDP1 on CPUs, where Lightning's own refuses to run."""

    def _setup_model(self, model):
        given = {"mixed_precision": self.mixed_precision, **self.kwargs}
        return FullyShardedDataParallel(model, device_id=torch.device("cpu"), **given)


STRATEGIES = {
    "fsdp2": lambda: ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1),
    "fsdp1": lambda: Wrapping(auto_wrap_policy={BLOCK}),
    "fsdp1_half": lambda: Wrapping(
        auto_wrap_policy={BLOCK}, mixed_precision=MixedPrecision(torch.bfloat16)
    ),
}


def run(folder, name, callbacks, strategy=None, fit=False, count=24, kind=Sharded):
    L.seed_everything(3, verbose=False)
    devices = 2 if strategy else 1
    process = trainer(
        folder,
        [*callbacks, Write(Path(folder) / f"{name}_{devices}")],
        devices=devices,
        strategy=STRATEGIES[strategy]() if strategy else "auto",
        logger=False,
        enable_checkpointing=False,
        accumulate_grad_batches=2,
        val_check_interval=1,  # every second validation is in the middle of an accumulation
        max_epochs=1,
    )
    validation = loader(count=count, batch_size=4)
    module = kind()
    if fit:
        process.fit(module, loader(count=count, batch_size=4), validation)
    else:
        process.validate(module, validation, verbose=False)
    return process, module


def validate(folder, strategy=None, prefix="one"):
    for name, (size, count) in PROBES.items():
        callback = quick_audit(max_samples=size, metrics=METRICS, num_images=0)
        run(folder, f"{prefix}_{name}", [callback], strategy, count=count)


def validate_in_half(folder):
    kinds = {"half": ("fsdp2", Half), "half1": ("fsdp1_half", Classifier)}
    kinds["half1_again"] = ("fsdp1_half", Compiling)
    for name, (strategy, kind) in kinds.items():
        callback = quick_audit(max_samples=12, metrics=METRICS, num_images=0)
        run(folder, name, [callback], strategy, kind=kind)


def fail_in_the_second(folder, strategy):
    """One process fails in its second audit."""
    result, audits = AuditRun.add, []

    def failing(self, groups):
        audits.append(self)
        if dist.get_rank() == 1 and len(audits) == 3:  # the first is that of the sanity check
            raise ValueError("planted")
        return result(self, groups)

    AuditRun.add = failing
    callback = quick_audit(metrics=METRICS, num_images=0, on_error="warn")
    run(folder, f"{strategy}_failing", [callback], strategy, fit=True)
    AuditRun.add = result


def remains(process, module):
    """The digest of a run with the parts that this process has, and what FSDP remembers."""
    found = [v.to_local() if isinstance(v, DTensor) else v for v in digest(process, module)]
    root = process.strategy.model
    return [*found, [str(type(m)) for m in root.modules()], [flags(m) for m in root.modules()]]


def flags(module):
    if isinstance(module, FSDPModule):
        groups = parameter_groups(module)
        return [(str(g._sharded_state), str(g._training_state)) for g in groups]
    if isinstance(module, FullyShardedDataParallel):
        flat = module._handle.flat_param
        return str(module.training_state), tuple(flat.shape), flat.untyped_storage().nbytes()
    return None


def train(folder, strategy):
    for name, callbacks in (("with", [quick_audit(max_samples=5)]), ("without", [])):
        found = run(folder, f"{strategy}_{name}", callbacks, strategy, fit=True)
        torch.save(remains(*found), Path(folder) / f"{strategy}_{name}_{dist.get_rank()}.pt")


def refuse_tensor_parallelism(folder):
    try:
        STRATEGIES["tensor"] = lambda: ModelParallelStrategy(1, 2)
        run(folder, "tensor", [quick_audit()], "tensor", fit=True)
    except L.fabric.utilities.exceptions.MisconfigurationException as error:
        Path(folder, f"tensor_{dist.get_rank()}.txt").write_text(str(error))


def process(rank, folder):
    torch.set_num_threads(1)
    meeting, seconds = f"file://{folder}/meeting", timedelta(seconds=60)
    dist.init_process_group("gloo", meeting, rank=rank, world_size=2, timeout=seconds)
    launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    launched |= {"MASTER_ADDR": "localhost", "MASTER_PORT": 1, "TORCHELASTIC_RUN_ID": "test"}
    os.environ.update({name: str(value) for name, value in launched.items()} | {"GROUP_RANK": "0"})
    for strategy in ("fsdp2", "fsdp1"):
        validate(folder, strategy, strategy)
        train(folder, strategy)
        fail_in_the_second(folder, strategy)
    validate_in_half(folder)
    refuse_tensor_parallelism(folder)
