"""Frozen weights shared among the processes: for a base too large for one device (FSDP2)."""

from __future__ import annotations

import torch
from torch import nn

from taxadiffusion.trainer.world import World


def shard_frozen(unet: nn.Module, trained: set[nn.Parameter], world: World) -> None:
    """Let every process keep its part of the frozen weights; each block is gathered while it computes.

    `trained` stay whole on every process: their gradients are summed as without sharding, to the same bits. All
    processes must call the network together from now on; weights can no longer be merged or read in place.
    """
    if world.num_processes == 1:
        return
    # The first backward pass counts devices and starts a thread for each. Sharding makes a torch without CUDA pretend
    # to have some, and their threads may abort the process: let the count be taken before.
    torch.ones((), requires_grad=True).backward()  # type: ignore[no-untyped-call]
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.num_processes,))
    blocks = [block for name in ("down_blocks", "up_blocks") for block in getattr(unet, name)]
    middle = getattr(unet, "mid_block", None)
    for block in (*blocks, *([middle] if middle is not None else []), unet):
        fully_shard(block, mesh=mesh, ignored_params=trained)
