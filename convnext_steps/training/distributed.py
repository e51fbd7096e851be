"""Several processes that train one model together, as torchrun starts them."""

import atexit
import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from convnext_steps.device import find_device
from convnext_steps.errors import TrainingError

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    rank: int = 0
    count: int = 1
    device: torch.device = CPU  # that this process trains on

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes files and shows progress."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with its gradients averaged over all processes.

        On GPUs, BatchNorm's statistics are taken over all processes; PyTorch cannot on CPUs.
        """
        if self.count == 1:
            return model
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        warnings.filterwarnings("ignore", "Grad strides do not match")  # they are copied anyway
        return DistributedDataParallel(model)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.count > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values

    def from_main(self, function: Callable[[], Any]) -> Any:
        """The value that a function returns in the main process, in every process.

        Only the main process reads files: the others need not see its disk.
        """
        if self.count == 1:
            return function()
        results: list[Any] = [None, None]  # the value, or the error
        if self.main:
            try:
                results[0] = function()
            except TrainingError as error:
                results[1] = error
        dist.broadcast_object_list(results, src=0)
        if results[1] is not None:
            raise results[1]
        return results[0]

    def same_buffers(self, model: nn.Module) -> None:
        """Give every process the running statistics of the main one."""
        if self.count > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def accumulating(self, network: nn.Module, last: bool) -> AbstractContextManager[None]:
        """A context that averages gradients only in the last backward pass of an update."""
        if isinstance(network, DistributedDataParallel) and not last:
            return network.no_sync()
        return nullcontext()


JOINED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what PyTorch joins by
LAUNCHED = ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # how many there are
LOCAL = ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID")


def join(device: str = "auto") -> Processes:
    """Join the other processes, once, if torchrun or another launcher started several.

    Args:
        device: as in `How`.

    Raises:
        TrainingError: several were started, and nothing says how to join them, or there is no such
            device.
    """
    joined = dist.is_initialized() or "TORCHELASTIC_RUN_ID" in os.environ or _several()
    found = find_device(device, _local_rank() if joined else 0)
    if found.type == "cuda":
        torch.cuda.set_device(found)
    if not joined:
        return Processes(device=found)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if found.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
    return Processes(dist.get_rank(), dist.get_world_size(), found)


def _several() -> bool:
    """Whether a launcher started several processes, which can be joined."""
    counts = {name: os.environ[name] for name in LAUNCHED if name in os.environ}
    several = [name for name, count in counts.items() if count.isdigit() and int(count) > 1]
    missing = [name for name in JOINED if name not in os.environ]
    if several and missing:
        raise TrainingError(
            f"{several[0]} is {counts[several[0]]}, but {', '.join(missing)} are not set, so that "
            "each process would train alone; start them with torchrun, or set these "
            f"(to train in one process, unset {several[0]})"
        )
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _local_rank() -> int:
    return next((int(os.environ[name]) for name in LOCAL if name in os.environ), 0)
