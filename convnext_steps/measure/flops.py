"""Multiply-adds and parameters of a network, counted by fvcore."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from convnext_steps.models.layers import evaluating, first_convolution

CONV_LINEAR = ("conv", "linear", "addmm", "matmul")
NORM = ("layer_norm", "batch_norm")


@dataclass(frozen=True)
class FlopCount:
    """The cost of one image's forward pass, in multiply-adds as fvcore counts them.

    The paper's GFLOPs are `conv_linear` / 1e9. fvcore also counts norms (5 per element for
    LayerNorm, 2 for BatchNorm in eval mode) and average pooling; `total` is the sum of all.
    """

    conv_linear: int
    norm: int
    total: int
    params: int
    by_operator: dict[str, int]
    uncounted: dict[str, int]  # calls of operators without a formula in fvcore, such as add

    def __str__(self) -> str:
        return (
            f"{self.conv_linear / 1e9:.3f} G multiply-adds in convolutions and linear layers "
            f"({self.total / 1e9:.3f} G with norms and pooling), "
            f"{self.params / 1e6:.2f} M parameters"
        )


def count_flops(
    model: nn.Module, resolution: int = 224, in_channels: int | None = None
) -> FlopCount:
    """Count one image's forward pass in eval mode.

    Args:
        model: any network over images; it is left as it is.
        resolution: side of the square image in pixels.
        in_channels: channels of the image; by default those of the model's first convolution.

    Raises:
        ValueError: the image is too small for the network, or `in_channels` is not given and the
            network has no convolution.
    """
    if resolution < 1:
        raise ValueError(f"resolution is {resolution}; it must be at least 1")
    if in_channels is None:
        first = first_convolution(model)
        if first is None:
            raise ValueError("the model has no convolution; give in_channels")
        in_channels = first.in_channels
    image = next(model.parameters()).new_zeros(1, in_channels, resolution, resolution)
    with evaluating(model), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # fvcore uses torch.jit, even on import
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model, image)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.tracer_warnings("none")
        by_operator = {name: round(count) for name, count in sorted(analysis.by_operator().items())}
        uncounted = dict(sorted(analysis.unsupported_ops().items()))
    return FlopCount(
        conv_linear=_sum(by_operator, CONV_LINEAR),
        norm=_sum(by_operator, NORM),
        total=sum(by_operator.values()),
        params=sum(parameter.numel() for parameter in model.parameters()),
        by_operator=by_operator,
        uncounted=uncounted,
    )


def _sum(by_operator: dict[str, int], names: Iterable[str]) -> int:
    return sum(by_operator.get(name, 0) for name in names)
