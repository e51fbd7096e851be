"""Where random numbers begin: from the recipe's seed, the epoch, and a process or an image."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def mixed_seed(*numbers: int) -> int:
    """One 63-bit seed from several numbers, such as seed, epoch and rank."""
    words = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return int(words[0]) >> 1


def seed_everything(*numbers: int) -> None:
    """Seed Python, NumPy and PyTorch from one or more numbers, such as seed, epoch and rank."""
    seed_cpu(*numbers)
    torch.manual_seed(mixed_seed(*numbers))


def seed_cpu(*numbers: int) -> None:
    """The same without GPUs, as in a data loader's worker, which must not touch them."""
    seed = mixed_seed(*numbers)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


@contextmanager
def own_random_numbers() -> Iterator[None]:
    """A block after which all random numbers go on as if before it."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


def random_state() -> tuple[Any, ...]:
    """Where Python's, NumPy's and PyTorch's random numbers are, on the CPU and a GPU in use."""
    gpu = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), gpu


def set_random_state(state: tuple[Any, ...]) -> None:
    """Go on from where `random_state` was taken."""
    python, numpy, torch_cpu, gpu = state
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(torch_cpu)
    if gpu is not None:
        torch.cuda.set_rng_state(gpu)
