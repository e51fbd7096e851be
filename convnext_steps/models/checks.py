"""What a network can be built from and what it takes: one clear line for every mistake."""

import torch
from torch import Tensor
from torch.fx import Proxy


def check_options(in_channels: int, num_classes: int, drop_path_rate: float) -> None:
    """Check the options that every network of this package has.

    Raises:
        ValueError: one is out of range.
    """
    if in_channels < 1:
        raise ValueError(f"in_channels must be at least 1, not {in_channels}")
    if num_classes < 0:
        raise ValueError(f"num_classes must be 0 (no classifier) or more, not {num_classes}")
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"drop_path_rate must be at least 0 and below 1, not {drop_path_rate}")


def check_images(x: Tensor | Proxy, smallest_side: int, in_channels: int | None = None) -> None:
    """Check that images leave every feature map of a network at least one pixel.

    What a tool records instead of a computation (torch.fx, torch.jit.trace, torch.export, ONNX)
    stays free of the check: it would be a branch that depends on the images' size.

    Args:
        x: images (N, C, H, W), or what stands for them in a recording.
        smallest_side: of the network, in pixels.
        in_channels: of the network; None: any.

    Raises:
        ValueError: they are too small, or have another number of channels.
    """
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    if isinstance(x, Proxy) or tracing or torch.compiler.is_exporting():
        return
    if in_channels is not None and (x.ndim != 4 or x.shape[1] != in_channels):
        wanted = f"(N, {in_channels}, H, W)"
        raise ValueError(f"this model takes images {wanted}, not {tuple(x.shape)}")
    height, width = x.shape[-2:]
    if min(height, width) < smallest_side:
        raise ValueError(
            f"images of {height}x{width} are too small for this network; "
            f"it needs at least {smallest_side} pixels per side"
        )
