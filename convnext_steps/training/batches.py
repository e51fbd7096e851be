"""Which images make up which batch, in one process or many."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from convnext_steps.errors import TrainingError
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.distributed import Processes
from convnext_steps.training.items import SeededItems, collate, on_device, takes_batches
from convnext_steps.training.seeds import mixed_seed

EVALUATION_BATCH_SIZE = 500


class TrainingBatches(Sampler[list[int]]):
    """The indices of every micro-batch of an epoch, for one of several processes.

    The order depends on the seed and the epoch only. Each update takes `batch_size` images over all
    processes, the same images for any number of processes; an incomplete last batch is left out.

    Raises:
        TrainingError: the images do not fill a batch, or the batch does not divide evenly among
            processes and micro-batches.
    """

    def __init__(self, size: int, config: TrainingConfig, processes: Processes) -> None:
        if size < config.batch_size:
            raise TrainingError(
                f"{size} images do not fill a batch of {config.batch_size}; lower batch_size"
            )
        share = max(1, config.batch_size // processes.count)
        self.micro_batch_size = min(config.micro_batch_size or share, share)
        if config.batch_size % (self.micro_batch_size * processes.count):
            raise TrainingError(
                f"batch_size {config.batch_size} is not a multiple of micro_batch_size "
                f"{self.micro_batch_size} times {processes.count} processes"
            )
        self.size, self.config, self.processes = size, config, processes
        self.steps = size // config.batch_size
        self.micro_batches = share // self.micro_batch_size  # of this process, for one update
        self.epoch = 1

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(mixed_seed(self.config.seed, self.epoch))
        order = torch.randperm(self.size, generator=generator).tolist()
        for start in range(0, self.steps * self.config.batch_size, self.config.batch_size):
            batch = order[start : start + self.config.batch_size]
            share = batch[self.processes.rank :: self.processes.count]
            for first in range(0, len(share), self.micro_batch_size):
                yield share[first : first + self.micro_batch_size]


def evaluation_batches(
    size: int, processes: Processes, micro_batch_size: int = 0
) -> list[list[int]]:
    """The indices of this process's share of a test set; each image is in exactly one share.

    With micro-batches, a batch has four times their size, up to 500: a forward pass alone needs
    less memory than training.
    """
    share = list(range(processes.rank, size, processes.count))
    step = min(EVALUATION_BATCH_SIZE, 4 * micro_batch_size or EVALUATION_BATCH_SIZE)
    return [share[first : first + step] for first in range(0, len(share), step)]


def loader(
    dataset: Dataset[Any],
    batches: Sampler[list[int]] | list[list[int]],
    workers: int = 0,
    seed: int = 0,
) -> Iterable[Any]:
    """Batches (images, labels) of any data set; data in memory are indexed by whole batches.

    Whatever else an item draws at random, it draws by the seed and its index.
    """
    if on_device(dataset):
        return _device_batches(dataset, list(batches))
    items = SeededItems(dataset, seed)
    pin = torch.cuda.is_initialized() and torch.as_tensor(items[0][0]).device.type == "cpu"
    options: dict[str, Any] = {"num_workers": workers, "pin_memory": pin}
    if takes_batches(dataset):
        return DataLoader(dataset, sampler=batches, batch_size=None, **options)
    return DataLoader(items, batch_sampler=batches, collate_fn=collate, **options)


def _device_batches(dataset: Any, batches: list[list[int]]) -> Iterator[Any]:
    """Batches of images that are on a device, whose indices go there once for all batches."""
    device = dataset[0][0].device
    every = torch.tensor([index for batch in batches for index in batch], device=device)
    for indices in every.split([len(batch) for batch in batches]):
        yield dataset[indices]
