"""The memory that training and evaluation keep from batch to batch."""

import resource
import sys
from pathlib import Path

import pytest
import torch

from convnext_steps.models.fast import memory
from convnext_steps.models.fast.memory import kept_memory


@pytest.mark.skipif(sys.platform != "linux" or memory._glibc() is None, reason="no glibc")
def test_memory_is_kept_between_steps_and_then_given_back() -> None:
    def faults() -> int:
        """How many pages the system had to find for a tensor of 128 MiB, five times."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            torch.zeros(2**25)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    with kept_memory():
        with kept_memory():
            faults()
        kept, held = faults(), resident()
    assert resident() < held - 2**26
    assert kept < faults() / 10


def test_with_another_c_library_nothing_changes(monkeypatch) -> None:
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    with kept_memory():
        assert torch.zeros(2**20).sum() == 0
