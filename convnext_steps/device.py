"""The device that a training runs on, and how exactly a GPU repeats itself."""

import os
from collections.abc import Sequence

import torch
from torch import nn

from convnext_steps.errors import TrainingError

# Read once by PyTorch, at the first matrix product on a GPU; without it, cuBLAS may differ.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def find_device(word: str = "auto", index: int = 0) -> torch.device:
    """The device that a word of `How.device` stands for.

    Args:
        word: "auto" (a GPU through CUDA where there is one, else the CPU), "cpu", "cuda" or "mps".
        index: of the GPU, where there are several.

    Raises:
        TrainingError: there is no such device here.
    """
    if word == "mps":
        if not torch.backends.mps.is_available():
            raise TrainingError("device is mps, but PyTorch finds no Apple GPU; use auto")
        return torch.device("mps")
    if word == "cpu" or (word == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if index >= torch.cuda.device_count():
        found = torch.cuda.device_count() or "none"
        raise TrainingError(
            f"device is {word}, but process {index + 1} finds no GPU of its own through CUDA "
            f"({found} here); start fewer processes, or use cpu"
        )
    return torch.device("cuda", index)


def gpus(word: str = "auto") -> int:
    """How many GPUs of this machine trainings may use through CUDA, 0 where they use none."""
    return torch.cuda.device_count() if word in ("auto", "cuda") else 0


def gpu_shares(word: str, processes: int) -> list[list[int]]:
    """The GPUs that each of several runs at once may use, so many per run; none on a CPU."""
    found = gpus(word)
    return [list(range(i, min(i + processes, found))) for i in range(0, found, processes)]


def memory_format(device: torch.device) -> torch.memory_format:
    """How images and weights lie in memory: channels last, but on MPS.

    There BatchNorm's gradients are wrong then: https://github.com/pytorch/pytorch/issues/175189
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def lay_out(model: nn.Module, device: torch.device) -> None:
    """Give a model's four-dimensional weights the layout of the images."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=memory_format(device))


def wait_for_gpu() -> None:
    """Wait until a GPU in use has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()


def visible(own: Sequence[int] | None) -> dict[str, str]:
    """The environment of a process that is to see only these of this process's GPUs."""
    if own is None:
        return {}
    every = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = every.split(",") if every else list(map(str, range(torch.cuda.device_count())))
    return {"CUDA_VISIBLE_DEVICES": ",".join(names[index] for index in own)}


def device_name(word: str = "auto") -> str:
    """What a result says it was trained on: the GPU's name, "mps" or "cpu"."""
    kind = find_device(word).type
    return torch.cuda.get_device_name() if kind == "cuda" else kind


def set_determinism(device: torch.device, wanted: bool) -> None:
    """Let a GPU repeat its bits, or choose the fastest kernels; for all of this process.

    A CPU repeats its bits anyway.
    """
    if device.type != "cuda":
        return
    torch.use_deterministic_algorithms(wanted)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = wanted
    torch.backends.cudnn.benchmark = not wanted
