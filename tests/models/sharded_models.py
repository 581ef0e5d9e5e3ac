"""Models that FSDP spreads over processes in every way, and what a training leaves behind."""

from datetime import timedelta

import torch
import torch.distributed as dist
from situation_cases import images, vit
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    FullyShardedDataParallel,
    MixedPrecisionPolicy,
    ShardingStrategy,
    fully_shard,
)
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.pipelining import PipelineStage
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.experimental import _attention
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from libragrad_lightning.models.sharding import parameter_groups

CPU = torch.device("cpu")


def join(rank, folder, count=2):
    """Join a group of processes, which waits for none for long."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    seconds = timedelta(seconds=60)
    dist.init_process_group("gloo", meeting, rank=rank, world_size=count, timeout=seconds)


def of_blocks(model, mesh=None, **kwargs):
    """Spread the blocks, and then what is left, by FSDP2."""
    mesh = mesh or init_device_mesh("cpu", (dist.get_world_size(),))
    for block in model.blocks:
        fully_shard(block, mesh=mesh, **kwargs)
    return fully_shard(model, mesh=mesh, **kwargs)


def called(model):
    """Let a model run, after which roots keep their whole weights, and FSDP1 is set up."""
    with torch.no_grad():
        model.eval()(images().to(next(model.parameters()).dtype))
    return model


def left_gathered(model):
    """The root keeps its whole weights after a forward pass."""
    called(of_blocks(model))
    assert not isinstance(model.head.weight, DTensor)
    return model


def in_groups(model):
    """Blocks that share a group, in a root."""
    mesh = init_device_mesh("cpu", (2,))
    fully_shard(list(model.blocks), mesh=mesh)
    return fully_shard(model, mesh=mesh)


def offloaded(model):
    return of_blocks(model, offload_policy=CPUOffloadPolicy(pin_memory=False))


def checkpointed(model):
    """With the wrappers around blocks that recompute activations."""
    kind = type(model.blocks[0])
    apply_activation_checkpointing(model, check_fn=lambda module: type(module) is kind)
    return of_blocks(model)


def frozen(model):
    """With adapters alone to train, and tied weights."""
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    model.blocks[1].mlp.fc1.weight = model.blocks[0].mlp.fc1.weight
    return fully_shard(model, mesh=init_device_mesh("cpu", (2,)))


def from_meta(model):
    """Made without memory, spread, and filled then."""
    state = model.state_dict()
    with torch.device("meta"):
        empty = vit()
    of_blocks(empty).to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in empty.named_parameters():
            whole = state[name].chunk(2)
            own = whole[dist.get_rank()] if dist.get_rank() < len(whole) else state[name][:0]
            parameter.to_local().copy_(own)
    return empty


def wrapped(model, **kwargs):
    """Spread by FSDP1, the blocks and what is left."""
    policy = ModuleWrapPolicy({type(model.blocks[0])})
    kwargs |= {"device_id": CPU, "auto_wrap_policy": policy}
    return called(FullyShardedDataParallel(model, **kwargs))


def wrapped_in_one(model):
    return called(nn.Sequential(FullyShardedDataParallel(model, device_id=CPU)))


EXACT = {
    "blocks": of_blocks,
    "left gathered": left_gathered,
    "groups": in_groups,
    "offloaded": offloaded,
    "checkpointed": checkpointed,
    "frozen": frozen,
    "from meta": from_meta,
    "wrapped": wrapped,
    "original parameters": lambda model: wrapped(model, use_orig_params=True),
    "in one": wrapped_in_one,
    "gradients alone": lambda m: wrapped(m, sharding_strategy=ShardingStrategy.SHARD_GRAD_OP),
}
"""Ways to spread a model, as functions of it; what they compute is the same to the last bit."""


def replicated(model):
    """Two groups of two processes have a model each."""
    return of_blocks(model, init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")))


def replicated_and_wrapped(model):
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    return wrapped(model, device_mesh=mesh, sharding_strategy=ShardingStrategy.HYBRID_SHARD)


def in_half(model):
    """Computes in bfloat16, with weights of its own precision."""
    return called(of_blocks(model, mp_policy=MixedPrecisionPolicy(torch.bfloat16)))


def in_tensors(model):
    """Tensor parallelism in the blocks."""
    style = {"mlp.fc1": ColwiseParallel(), "mlp.fc2": RowwiseParallel()}
    for block in model.blocks:
        parallelize_module(block, init_device_mesh("cpu", (2,)), style)
    return model


def in_tensors_and_data(model):
    """Both, as `ModelParallelStrategy` has it, without the hooks of the first."""
    mesh = init_device_mesh("cpu", (1, 2), mesh_dim_names=("data", "tensor"))
    layer = model.blocks[0].mlp.fc1
    layer.weight = nn.Parameter(distribute_tensor(layer.weight, mesh["tensor"], [Shard(0)]))
    return fully_shard(model, mesh=mesh["data"])


def in_context(model):
    """Attention to tokens of other processes."""
    kind = _attention._ContextParallel
    style = kind(seq_dim=2, attention_type=kind.AttentionType.SDPA)
    parallelize_module(model.blocks[0].attn, init_device_mesh("cpu", (2,)), style)
    return model


def in_pipeline(model):
    """A module that is a stage of a pipeline."""
    model.stage = PipelineStage(nn.Identity(), dist.get_rank(), 2, CPU)
    return model


WITHIN_IMAGES = {
    "tensor": (in_tensors, in_tensors_and_data),
    # Older releases do it by hooks of tensor parallelism, and are refused as that.
    "context": (in_context,) if hasattr(_attention, "_ContextParallel") else (),
    "pipeline": (in_pipeline,),
}
"""Ways to compute the scores of an image in several processes, by what errors call them."""


def step(model, rank):
    """One pass forward and backward, whose gradients add up."""
    model.train()(images(seed=rank)).square().sum().backward()


def remains(model):
    """All that a process keeps of a model, as one flat list."""
    parameters = list(model.parameters())
    return [
        *map(own, parameters),
        *(own(p.grad) for p in parameters if p.grad is not None),
        [(id(p), type(p), tuple(p.shape), p.requires_grad) for p in parameters],
        [p.grad is None for p in parameters],
        [type(m) for m in model.modules()],
        [sorted(vars(m)) for m in model.modules()],
        [list(m._forward_hooks.values()) for m in model.modules()],
        [list(m._forward_pre_hooks.values()) for m in model.modules()],
        [flags(m) for m in model.modules()],
    ]


def own(parameter):
    local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
    return local.detach().clone()


def flags(module):
    """Return what FSDP remembers of a module."""
    if isinstance(module, FSDPModule):
        state, groups = module._get_fsdp_state(), parameter_groups(module)
        managed = [(p.sharded_state, id(p.sharded_param)) for g in groups for p in g.fsdp_params]
        return (
            state._training_state,
            [(g._sharded_state, g._training_state) for g in groups],
            managed,
        )
    if isinstance(module, FullyShardedDataParallel) and module._handle is not None:
        flat = module._handle.flat_param
        return module.training_state, module._handle._training_state, flat.shape, flat.data_ptr()
    return None


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
        assert same, (one, other)
