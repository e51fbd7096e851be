"""A training step recorded as a CUDA graph: its thousand launches become one."""

from collections.abc import Callable

import torch
from torch import Tensor

from convnext_steps.training.seeds import own_random_numbers, random_state

WARM_UP = 3  # steps before the recording, in which libraries choose their kernels

Step = Callable[[Tensor, Tensor], Tensor]  # (images, labels) -> loss, detached


def record(step: Step, images: Tensor, labels: Tensor, tensors: Callable[[], list[Tensor]]) -> Step:
    """Record a step; what it changes is afterwards as it was before.

    A graph reads and writes the same memory each time: what the step changes must not be replaced
    by other tensors later. https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs

    Args:
        step: augmentation, forward, backward and optimiser; nothing in it may depend on a value
            on the GPU.
        images: a batch, of the shape of all that follow.
        labels: its labels.
        tensors: all tensors that the step changes, in a fixed order. Those that come into being
            in the first step, an optimiser's, begin with zeros and stand last.

    Raises:
        RuntimeError: the step cannot be recorded.
    """
    batch = images.clone(memory_format=torch.preserve_format), labels.clone()
    before = [tensor.clone() for tensor in tensors()]
    current = torch.cuda.current_stream()
    # A run that has its own stream records there: cuBLAS keeps one workspace per stream.
    stream = torch.cuda.Stream() if current == torch.cuda.default_stream() else current
    graph = torch.cuda.CUDAGraph()
    try:
        with own_random_numbers(), torch.cuda.stream(stream):
            stream.wait_stream(current)
            for _ in range(WARM_UP):
                step(*batch)
            drawn = _cpu_random_state()
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                loss = step(*batch)
            if drawn != _cpu_random_state():
                raise RuntimeError("the network draws random numbers on the CPU")
        current.wait_stream(stream)
    finally:
        changed = tensors()
        for tensor, value in zip(changed, before, strict=False):
            tensor.copy_(value)
        for tensor in changed[len(before) :]:
            tensor.zero_()

    def replay(images: Tensor, labels: Tensor) -> Tensor:
        batch[0].copy_(images)
        batch[1].copy_(labels)
        graph.replay()
        return loss.clone()

    return replay


def _cpu_random_state() -> tuple[object, ...]:
    """Where Python's, NumPy's and PyTorch's generators on the CPU are; a graph would draw once."""
    python, (_, numbers, *place), torch_cpu, _ = random_state()
    return python, numbers.tobytes(), tuple(place), torch_cpu.numpy().tobytes()
