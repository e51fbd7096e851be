"""Whether a network can be trained on data, checked before PyTorch would fail less clearly."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from convnext_steps.errors import ConvNeXtStepsError, TrainingError
from convnext_steps.models.layers import first_convolution
from convnext_steps.text import few, first_line

# What a message of PyTorch's says, and what to do about it.
REMEDIES = {
    r"shared memory|Bus error|/dev/shm|</torch_": "the data workers ran out of shared memory; use "
    "fewer data_workers (--data-workers 0), or give the container more (docker run --shm-size=8g)",
    r"(?i)(C|C\+\+|Cxx) ?compiler": "compile=True (--compile) needs a C++ compiler, and none works "
    "here; install one, such as g++, or train without compile",
    r"Expected more than 1 value per channel": "BatchNorm cannot train on one value per channel; "
    "use a batch_size, and a micro_batch_size, of at least 2, or larger images",
    r"does not have a deterministic implementation": "an operator of this network has no "
    "deterministic form on a GPU; train without how.deterministic",
    r"not currently implemented for the MPS device": "PyTorch lacks an operator of this network on "
    "mps; set PYTORCH_ENABLE_MPS_FALLBACK=1, or use device cpu",
}


@contextmanager
def remedies() -> Iterator[None]:
    """A block in which what a machine lacks is one line that says what to do.

    Raises:
        TrainingError: one of `REMEDIES` applies.
    """
    try:
        yield
    except ConvNeXtStepsError:
        raise
    except Exception as error:
        for words, remedy in REMEDIES.items():
            if re.search(words, f"{error!r} {error.__cause__}"):
                raise TrainingError(remedy) from error
        raise


def why_not(model: nn.Module, shape: tuple[int, ...], error: Exception) -> str:
    """Why a network cannot take an image of this shape, (C, H, W)."""
    first = first_convolution(model)
    if first is not None and shape[0] != first.in_channels:
        if shape[-1] == first.in_channels:
            return (
                f"the images are {shape}, height, width, channels; the network takes channels "
                "first: image.permute(2, 0, 1)"
            )
        return (
            f"the images have {shape[0]} channels, but the network takes "
            f"{first.in_channels}; build it with in_channels={shape[0]}"
        )
    if isinstance(error, ValueError):
        return str(error)
    return f"the network cannot take an image of shape {shape}: {first_line(error)}"


def logits_of(output: Any) -> Tensor:
    """A network's logits, (N, classes), or the `logits` of what it returns, as GoogLeNet does.

    Raises:
        TrainingError: there are none.
    """
    logits = getattr(output, "logits", output)
    if isinstance(logits, Tensor) and logits.ndim == 2:
        return logits
    kind = type(logits).__name__
    shape = f" of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else ""
    raise TrainingError(f"the network returns a {kind}{shape}; it must return logits (N, classes)")


def check_labels(labels: Tensor, classes: int) -> None:
    """Check that every label is one of the network's classes.

    Raises:
        TrainingError: a label is negative, or not below the number of classes.
    """
    values = labels.numpy(force=True)
    low, high = values.min(), values.max()
    if low < 0 or high >= classes:
        raise TrainingError(
            f"a label is {low if low < 0 else high}, but the network has {classes} classes, "
            f"0 to {classes - 1}; build it with a larger num_classes, or correct the labels"
        )


def check_weights(model: nn.Module, step: int) -> None:
    """Check that all weights are finite.

    Raises:
        TrainingError: one is not.
    """
    finite = [torch.isfinite(value).all() for value in model.parameters()]
    for (name, _), is_finite in zip(
        model.named_parameters(), torch.stack(finite).tolist(), strict=True
    ):
        if not is_finite:
            raise TrainingError(
                f"{name} is no longer finite after step {step}; lower learning_rate or raise "
                "warmup_fraction"
                if step
                else f"{name} is not finite before training; build the network anew"
            )


def check_used(model: nn.Module) -> None:
    """Check, after a backward pass, that every parameter that should train has a gradient.

    Raises:
        TrainingError: some have none, and so processes cannot agree on the others' gradients.
    """
    named = model.named_parameters()
    unused = [name for name, value in named if value.requires_grad and value.grad is None]
    if unused:
        raise TrainingError(
            f"the network does not use {few(unused)}; several processes cannot train it together "
            "before these have requires_grad_(False)"
        )


def modules_in_eval(model: nn.Module) -> list[nn.Module]:
    """The modules that a user has set to eval mode, to stay there, such as a frozen BatchNorm.

    A model that is in eval mode as a whole was only used before; of it, what is frozen stays.
    """
    return [
        module
        for module in model.modules()
        if not module.training and (model.training or _frozen(module))
    ]


def _frozen(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(parameter.requires_grad for parameter in own)
