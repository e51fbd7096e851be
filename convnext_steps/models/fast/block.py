"""ConvNeXt's block as one function: sums and products along with a pass that is made anyway."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from convnext_steps.models.convnext import Block
from convnext_steps.models.fast.depthwise import DepthwiseConv2d, input_gradient, weight_gradient
from convnext_steps.models.fast.depthwise_plans import Job
from convnext_steps.models.fast.gelu import FastGELU
from convnext_steps.models.fast.linear import (
    FastLinear,
    factor,
    gradient_of_input,
    gradient_of_weight,
    gradient_through,
    product,
    product_gelu,
    product_type,
)
from convnext_steps.models.fast.norm import FastLayerNorm, normalise, normalise_gradients
from convnext_steps.models.fast.products import are_served
from convnext_steps.models.fast.run import (
    SINGLE,
    TYPES,
    Chain,
    differentiable_once,
    is_plain_training,
    kernels,
    row_tasks,
    run_with,
)

PARTS = (DepthwiseConv2d, FastLayerNorm, FastLinear, FastGELU, FastLinear)


class FastBlock(Block):
    """ConvNeXt's `Block` with float32 parameters, all of which are trained.

    Where a layer of it is not the fast one, or has a hook, layer after layer as in `Block`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return x plus the branch, (N, C, H, W) -> (N, C, H, W)."""
        if torch.compiler.is_compiling() or (kind := _served_type(self, x)) is None:
            return super().forward(x)
        factors = self.drop_path(torch.ones(len(x), 1, 1, 1, **SINGLE))  # what it multiplies with
        result: Tensor = _Block.apply(x, *_parameters(self), factors, self.norm.eps, kind)
        return result.permute(0, 3, 1, 2)  # out here: an in-place ReLU refuses a Function's views


def _parts(block: Block) -> tuple[nn.Module, ...]:
    return block.dwconv, block.norm, block.pwconv1, block.act, block.pwconv2


def _parameters(block: Block) -> list[Tensor | None]:
    """Return weights and biases in the order of `_parts`, then the LayerScale."""
    parts = (block.dwconv, block.norm, block.pwconv1, block.pwconv2)
    return [*(tensor for part in parts for tensor in (part.weight, part.bias)), block.gamma]


def _served_type(block: Block, x: Tensor) -> torch.dtype | None:
    """Return the products' type if this call is of tensors as the kernels know them, else None."""
    parameters = _parameters(block)
    served = (
        block.training
        and is_plain_training(x, block.pwconv1.weight)
        and tuple(type(part) for part in _parts(block)) == PARTS
        and not any(map(_is_changed, _parts(block)))
        and not hooks._has_any_global_hook()
        and all(tensor is not None and _is_trained(tensor) for tensor in parameters)
        and _have_shapes(block, x)
        and x.dtype in TYPES
        and kernels() is not None
    )
    return product_type(x, block.pwconv1.weight) if served else None


def _is_changed(part: nn.Module) -> bool:
    """Return whether a layer does more than its class says."""
    hooked = (
        part._forward_hooks
        or part._forward_pre_hooks
        or part._backward_hooks
        or part._backward_pre_hooks
    )
    return bool(hooked) or "forward" in vars(part) or not part.training


def _is_trained(tensor: Tensor) -> bool:
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        and tensor.requires_grad
        and (tensor.ndim != 1 or tensor.is_contiguous())
    )


def _have_shapes(block: Block, x: Tensor) -> bool:
    channels, convolution = block.pwconv2.out_features, block.dwconv
    per_channel = (convolution.bias, block.norm.weight, block.norm.bias, block.gamma)
    return (
        x.ndim == 4
        and x.shape[1] == channels == block.pwconv1.in_features == convolution.in_channels
        and all(tensor is not None and tensor.shape == (channels,) for tensor in per_channel)
        and convolution.stride == (1, 1)
        and 2 * int(convolution.padding[0]) + 1 == convolution.kernel_size[0]
    )


class _Block(torch.autograd.Function):
    """The result's channels are the last axis; it is float32, as the gradients are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: Tensor, conv_bias: Tensor, norm: Tensor,
                norm_bias: Tensor, expand: Tensor, expand_bias: Tensor, shrink: Tensor,
                shrink_bias: Tensor, gamma: Tensor, factors: Tensor, epsilon: float,
                kind: torch.dtype) -> Tensor:  # fmt: skip
        x = x.contiguous(memory_format=torch.channels_last)
        source = x.to(kind)
        y = F.conv2d(source, conv.to(kind), conv_bias.to(kind), 1, conv.shape[2] // 2, 1, len(conv))
        rows = y.permute(0, 2, 3, 1).reshape(-1, len(conv))  # (N, C, H, W) -> (N * H * W, C)
        chain = _chain(rows, expand)
        expand, shrink = factor(rows, expand), factor(rows, shrink)
        normed, moments = normalise(rows, norm, norm_bias, epsilon, kind, chain)
        activated, slope = product_gelu(normed, expand, expand_bias, chain)
        branch = product(activated, shrink, shrink_bias, chain)
        target = _add(x, branch, gamma, factors, chain)
        if chain:
            chain.run("block", _scratch_bytes(chain, rows, expand))
        ctx.save_for_backward(source, conv, rows, norm, moments, normed, expand, slope, activated,
                              shrink, branch, gamma, factors)  # fmt: skip
        return target

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (source, conv, rows, norm, moments, normed, expand, slope, activated, shrink, branch, gamma,
         factors) = ctx.saved_tensors  # fmt: skip
        gradient = gradient.contiguous()
        source = source.contiguous(memory_format=torch.channels_last)  # hooks may have turned it
        chain = _chain(rows, expand)
        to_branch, sums = _scale(gradient, branch, gamma, factors, chain)
        to_hidden, hidden_sums = gradient_through(to_branch, shrink, slope, chain)
        to_normed = gradient_of_input(to_hidden, expand, chain)
        to_rows, norm_sums = normalise_gradients(to_normed, rows, norm, moments, chain)
        if chain:
            chain.run("block_gradient", _scratch_bytes(chain, rows, expand))
        filled = chain is not None
        to_gamma, to_shrink_bias = sums.sum(0)
        to_norm, to_norm_bias = norm_sums.sum(0)
        to_shrink = gradient_of_weight(activated, to_branch, torch.float32, filled)
        to_expand = gradient_of_weight(normed, to_hidden, torch.float32, filled)
        to_y = to_rows.view(gradient.shape).permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)
        job = Job.of(source, to_y, conv.shape[2], 1, conv.shape[2] // 2, wide=True)
        to_conv, to_conv_bias = weight_gradient(source, to_y, job)
        to_x = input_gradient(to_y, conv, job).add_(gradient.permute(0, 3, 1, 2))
        return (to_x, to_conv, to_conv_bias, to_norm, to_norm_bias, to_expand, hidden_sums.sum(0),
                to_shrink, to_shrink_bias, to_gamma, None, None, None)  # fmt: skip


def _chain(rows: Tensor, expand: Tensor) -> Chain | None:
    """Return a chain where kernels do all that a block does to rows (R, C)."""
    return Chain(len(rows)) if are_served(len(rows), *expand.shape) else None


def _scratch_bytes(chain: Chain, rows: Tensor, expand: Tensor) -> int:
    """Return what a thread needs: two rows of float32, a narrow and a wide chunk as `rows` are."""
    wide, narrow = expand.shape
    return 8 * narrow + rows.itemsize * chain.chunk * (narrow + wide)


def _add(x: Tensor, branch: Tensor, gamma: Tensor, factors: Tensor, chain: Chain | None) -> Tensor:
    """Return x + gamma * branch * factors, (N, H, W, C), of a channels-last x (N, C, H, W).

    branch is (N * H * W, C), gamma (C) a LayerScale; factors (N, 1, 1, 1) are 1 or what stochastic
    depth drew.
    """
    x = x.permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
    target = torch.empty(x.shape, **SINGLE)
    run_with(
        "residual",
        "RESIDUAL",
        chain,
        x=x,
        branch=branch,
        gamma=gamma,
        factors=factors,
        target=target,
        half_x=x.dtype == torch.bfloat16,
        **_scaling(branch, factors, chain),
    )
    return target


def _scale(
    gradient: Tensor, branch: Tensor, gamma: Tensor, factors: Tensor, chain: Chain | None
) -> tuple[Tensor, Tensor]:
    """Return the branch's gradient and, in parts, the LayerScale's and the branch's bias's.

    The parts (tasks, 2, C) are to be added up.
    """
    to_branch = torch.empty_like(branch)
    call = _scaling(branch, factors, chain)
    total = torch.empty(call["tasks"], 2, len(gamma), **SINGLE)
    run_with(
        "residual_gradient",
        "RESIDUAL_GRADIENT",
        chain,
        gradient=gradient,
        branch=branch,
        gamma=gamma,
        factors=factors,
        to_branch=to_branch,
        total=total,
        **call,
    )
    return to_branch, total


def _scaling(branch: Tensor, factors: Tensor, chain: Chain | None) -> dict[str, int]:
    """Return what both kernels of the residual are told."""
    rows, channels = branch.shape
    return {
        **row_tasks(rows, channels, chain),
        "image_rows": rows // len(factors),
        "half": branch.dtype == torch.bfloat16,
    }
