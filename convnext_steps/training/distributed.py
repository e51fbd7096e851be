"""Several processes that train one model together, as torchrun starts them."""

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from convnext_steps.errors import TrainingError


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes files and shows progress."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """The device that this process trains on."""
        if torch.cuda.is_available():
            return torch.device("cuda", self.local_rank)
        return torch.device("cpu")

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with its gradients averaged over all processes.

        On GPUs, BatchNorm's statistics are taken over all processes; PyTorch cannot on CPUs.
        """
        if self.count == 1:
            return model
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return DistributedDataParallel(model)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """A block that the first process of each machine finishes before the others enter it."""
        if self.count > 1 and self.local_rank > 0:
            dist.barrier()
        yield
        if self.count > 1 and self.local_rank == 0:
            dist.barrier()

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

    def mean(self, value: float) -> float:
        """The mean of a number over all processes."""
        total = self.sum(torch.tensor(value, dtype=torch.float64, device=self.device))
        return float(total) / self.count

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


def join() -> Processes:
    """Join the other processes, once, if torchrun started this one; else train alone."""
    if "TORCHELASTIC_RUN_ID" not in os.environ and not dist.is_initialized():
        return Processes()
    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(dist.destroy_process_group)
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    return Processes(dist.get_rank(), dist.get_world_size(), local_rank)
