"""How long a network takes on this machine, and what share of the machine's rate that is."""

import statistics
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_steps.cpu.depthwise import fast_depthwise
from convnext_steps.device import find_device, lay_out, memory_format, wait_for_gpu
from convnext_steps.measure.flops import count_flops

Precision = Literal["fp32", "bf16"]
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SIZES = (256, 512, 1024, 2048)  # of matrices; large ones reach the peak
LARGE_SIZES = (4096, 8192)  # for a GPU
HARDLY = 0.75  # of the time with half of the threads: less, and the others are worth it
PATIENCE = 1.0  # seconds for a product: a CPU without bf16 takes 20 for the largest


@dataclass(frozen=True)
class Work:
    """What is timed: one training step, or one inference, of a batch of square images."""

    resolution: int = 224
    batch_size: int = 8
    training: bool = True
    precision: Precision = "fp32"
    in_channels: int = 3
    num_classes: int = 1000
    device: str = "cpu"  # a word of `How.device`


@dataclass(frozen=True)
class Speed:
    """The time of one step of the work, over all rounds."""

    seconds: tuple[float, ...]  # of each round
    images_per_second: float  # at the median
    peak_memory: int | None  # bytes of a GPU that a step adds to what is held between steps
    share_of_peak: float  # of the rate of a matrix product, counting multiply-adds as two

    @property
    def milliseconds(self) -> float:
        """The median time of a step."""
        return 1000 * statistics.median(self.seconds)


def measure_speeds(
    models: Mapping[str, nn.Module],
    work: Work,
    rounds: int = 10,
    warmup: int = 1,
    fast: Collection[str] = (),
) -> dict[str, Speed]:
    """Time networks in turn (A B A B ...), so that they share whatever else the machine does.

    Before each timed step, the same network does one that is not: it then finds the memory as in
    training, not as the other network left it.

    Args:
        models: networks by name; training changes their weights.
        work: what is done.
        rounds: timed steps of each network.
        warmup: rounds before.
        fast: names of the networks that run as the Trainer lets them, with `fast_depthwise`.
    """
    steps = {name: prepare_step(model, work) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    peaks: dict[str, int | None] = dict.fromkeys(models)
    for number in range(-warmup, rounds):
        for name, model in models.items():
            with fast_depthwise(model) if name in fast else nullcontext():
                if number == 0:
                    peaks[name] = _peak_memory(steps[name])
                steps[name]()
                elapsed = time_once(steps[name])
            if number >= 0:
                seconds[name].append(elapsed)
    rate = _rate(work.precision, torch.get_num_threads(), work.device)
    return {
        name: _speed(model, work, seconds[name], peaks[name], rate)
        for name, model in models.items()
    }


def ratio(one: Speed, other: Speed) -> dict[str, float]:
    """How many times faster one network is than another, paired by round."""
    ratios = sorted(b / a for a, b in zip(one.seconds, other.seconds, strict=True))
    return {"median": statistics.median(ratios), "low": ratios[0], "high": ratios[-1]}


def prepare_step(model: nn.Module, work: Work) -> Callable[[], object]:
    """A function that does one step of the work: channels last, AdamW, autocast for bf16."""
    device = find_device(work.device)
    model.to(device).train(work.training)
    lay_out(model, device)
    generator = torch.Generator().manual_seed(0)
    shape = (work.batch_size, work.in_channels, work.resolution, work.resolution)
    images = torch.randn(shape, generator=generator).to(memory_format=memory_format(device))
    labels = torch.randint(work.num_classes, (work.batch_size,), generator=generator)
    images, labels = images.to(device), labels.to(device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=work.precision == "bf16")
    if not work.training:

        @torch.inference_mode()
        def infer() -> Tensor:
            with autocast:
                return model(images)

        return infer
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def train() -> None:
        optimizer.zero_grad()
        with autocast:
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()

    return train


def spare_threads(most: int) -> int:
    """How many threads pay off here and now, while other programs may keep some of the cores busy.

    A matrix product is timed with `most` threads, then with half as many, and so on, as long as
    that is hardly slower. PyTorch's own number of threads is left as it was.
    """
    before = torch.get_num_threads()
    a, b = torch.randn(2, 1024, 1024)

    def median(threads: int) -> float:
        torch.set_num_threads(threads)
        return statistics.median(time_once(partial(torch.matmul, a, b)) for _ in range(10))

    try:
        while most > 1 and median(most) > HARDLY * median(most // 2):
            most //= 2
    finally:
        torch.set_num_threads(before)
    return most


def matrix_rate(precision: Precision, device: str = "cpu") -> float:
    """The rate of a square matrix product here, in operations per second, the best of 10.

    A multiply-add counts as two operations.
    """
    where, dtype = find_device(device), TYPES[precision]
    for size in SIZES if where.type == "cpu" else LARGE_SIZES:
        a, b = (torch.randn(size, size, dtype=dtype, device=where) for _ in range(2))
        best = min(time_once(partial(torch.matmul, a, b)) for _ in range(10))
        if 8 * best > PATIENCE:  # the next size takes eight times as long
            break
    return 2 * size**3 / best


@cache
def _rate(precision: Precision, threads: int, device: str) -> float:
    """The matrix rate of so many threads, or of a GPU, measured once."""
    return matrix_rate(precision, device)


def _speed(
    model: nn.Module, work: Work, seconds: list[float], memory: int | None, rate: float
) -> Speed:
    median = statistics.median(seconds)
    macs = count_flops(model, work.resolution, work.in_channels).conv_linear * work.batch_size
    passes = 3 if work.training else 1  # the backward pass takes two products for each forward one
    share = 2 * macs * passes / median / rate
    return Speed(tuple(seconds), work.batch_size / median, memory, share)


def time_once(step: Callable[[], object]) -> float:
    """The seconds that a step takes, on a GPU in use too."""
    wait_for_gpu()
    start = time.perf_counter()
    step()
    wait_for_gpu()
    return time.perf_counter() - start


def _peak_memory(step: Callable[[], object]) -> int | None:
    """How far one step raises the memory of a GPU in use, in bytes; None on a CPU."""
    if not torch.cuda.is_initialized():
        return None
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    step()
    return torch.cuda.max_memory_allocated() - held
