"""Convolutions whose patches do not overlap, as linear layers: 1x1, and those that downsample."""

from typing import Any

import torch
from torch import Tensor, nn

from convnext_steps.models.fast.linear import linear, product_type
from convnext_steps.models.fast.products import are_served
from convnext_steps.models.fast.run import differentiable_once


class PatchConv2d(nn.Conv2d):
    """`nn.Conv2d` with stride = kernel size and no padding, as a linear layer over each patch.

    Of patches larger than 1x1, only where the products are compiled kernels' and the map consists
    of whole patches. Its result is channels-last.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Mix each patch's numbers, (N, in, H, W) -> (N, out, H / size, W / size)."""
        if not torch.compiler.is_compiling() and self.training and x.ndim == 4:
            kind = product_type(x, self.weight)
            if kind is not None and x.shape[1] == self.in_channels and _is_served(self, x):
                return _convolve(x, self.weight, self.bias, kind)
        return super().forward(x)


def _is_served(layer: nn.Conv2d, x: Tensor) -> bool:
    """Return whether a linear layer is faster on this map."""
    (images, channels, height, width), size = x.shape, layer.kernel_size[0]
    patches = images * (height // size) * (width // size)
    return size == 1 or (
        height % size == width % size == 0
        and are_served(patches, channels * size**2, layer.out_channels)
    )


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, kind: torch.dtype) -> Tensor:
    size = weight.shape[2]
    rows = x.permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C), a view when channels are last
    if size > 1:
        rows = _Patches.apply(rows, size, kind)
    weight = weight.permute(0, 2, 3, 1).flatten(1)  # (out, in, h, w) -> (out, h * w * in)
    return linear(rows, weight, bias, kind).permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


class _Patches(torch.autograd.Function):
    """(N, H, W, C) -> (N, H / size, W / size, size * size * C), in the products' type."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, kind: torch.dtype) -> Tensor:
        ctx.size, ctx.shape, ctx.type = size, x.shape, x.dtype
        patches = _patches(x, size)
        return torch.empty(patches.shape, dtype=kind, device="cpu").copy_(patches).flatten(3)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        to_x = torch.empty(ctx.shape, dtype=ctx.type, device="cpu")
        patches = _patches(to_x, ctx.size)
        patches.copy_(gradient.view(patches.shape))
        return to_x, None, None


def _patches(x: Tensor, size: int) -> Tensor:
    """View x (N, H, W, C) as (N, H / size, W / size, size, size, C)."""
    return x.unflatten(2, (-1, size)).unflatten(1, (-1, size)).transpose(2, 3)
