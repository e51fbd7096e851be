# mypy: ignore-errors
"""LayerNorm and its gradients, compiled by numba: one pass over memory each.

A row, of float32 or bfloat16, is widened into a scratch that stays in the processor's cache. Else
as in elementwise_kernels.py.
"""

import math

import numpy as np
from numba import carray, njit

from convnext_steps.models.fast.depthwise_kernels import compile_kernel, draw, fields
from convnext_steps.models.fast.elementwise_kernels import floats, halves, narrow, widen

_CALL = "scratch counter tasks scratch_bytes rows channels chunk x weight moments "
LAYER_NORM = fields(_CALL + "bias epsilon target half half_target")
LAYER_NORM_GRADIENT = fields(_CALL + "gradient to_x total half half_gradient")

# Sums may be taken in any order, or they would not be vectors.
_FAST = {"error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}

ONE, ZERO = np.float32(1), np.float32(0)


@njit(**_FAST)
def _unpack(source, half, row, count, target):
    """Read a tensor's row into float32."""
    if half:
        source16 = halves(source + 2 * row * count)
        for c in range(count):
            target[c] = widen(source16[c])
    else:
        source32 = floats(source + 4 * row * count)
        for c in range(count):
            target[c] = source32[c]


@njit(**_FAST)
def _pack(source, target, half, row, count):
    """Write float32 to a tensor's row."""
    if half:
        target16 = halves(target + 2 * row * count)
        for c in range(count):
            target16[c] = narrow(source[c])
    else:
        target32 = floats(target + 4 * row * count)
        for c in range(count):
            target32[c] = source[c]


@njit(**_FAST)
def normalise_rows(call, task, scratch, target):
    """Normalise a task's `chunk` rows; keep each one's mean and inverse standard deviation.

    `target` is where row 0 of the result is, or would be.
    """
    count = call.channels
    x, moments = floats(scratch), floats(call.moments)
    weight, bias = floats(call.weight), floats(call.bias)
    epsilon, share = floats(call.epsilon)[0], ONE / np.float32(count)
    for row in range(task * call.chunk, min(call.rows, (task + 1) * call.chunk)):
        _unpack(call.x, call.half, row, count, x)
        total = ZERO
        for c in range(count):
            total += x[c]
        mean, squares = total * share, ZERO
        for c in range(count):
            squares += (x[c] - mean) * (x[c] - mean)
        scale = ONE / math.sqrt(squares * share + epsilon)
        for c in range(count):
            x[c] = (x[c] - mean) * scale * weight[c] + bias[c]
        _pack(x, target, call.half_target, row, count)
        moments[2 * row], moments[2 * row + 1] = mean, scale


@njit(**_FAST)
def normalise_rows_gradient(call, task, scratch, source):
    """Write the input's gradient, and the weight's and the bias's sums over a task's rows.

    `source` is where row 0 of the result's gradient is, or would be.
    """
    count = call.channels
    x, gradient = floats(scratch), floats(scratch + 4 * count)
    weight, moments, share = floats(call.weight), floats(call.moments), ONE / np.float32(count)
    to_weight = floats(call.total + 8 * task * count)
    to_bias = floats(call.total + 8 * task * count + 4 * count)
    for c in range(count):
        to_weight[c] = to_bias[c] = ZERO
    for row in range(task * call.chunk, min(call.rows, (task + 1) * call.chunk)):
        mean, scale = moments[2 * row], moments[2 * row + 1]
        _unpack(call.x, call.half, row, count, x)
        _unpack(source, call.half_gradient, row, count, gradient)
        total, along = ZERO, ZERO
        for c in range(count):
            x[c] = (x[c] - mean) * scale
            total += gradient[c] * weight[c]
            along += gradient[c] * weight[c] * x[c]
        total, along = total * share, along * share
        for c in range(count):
            to_bias[c] += gradient[c]
            to_weight[c] += gradient[c] * x[c]
        for c in range(count):
            gradient[c] = scale * (gradient[c] * weight[c] - total - along * x[c])
        _pack(gradient, call.to_x, call.half, row, count)


@compile_kernel(LAYER_NORM, **_FAST)
def layer_norm(calls):
    """Do tasks of `normalise_rows`."""
    call = carray(calls, 1)[0]
    scratch = call.scratch + draw(call.counter + 8) * call.scratch_bytes
    while True:
        task = draw(call.counter)
        if task >= call.tasks:
            break
        normalise_rows(call, task, scratch, call.target)


@compile_kernel(LAYER_NORM_GRADIENT, **_FAST)
def layer_norm_gradient(calls):
    """Do tasks of `normalise_rows_gradient`."""
    call = carray(calls, 1)[0]
    scratch = call.scratch + draw(call.counter + 8) * call.scratch_bytes
    while True:
        task = draw(call.counter)
        if task >= call.tasks:
            break
        normalise_rows_gradient(call, task, scratch, call.gradient)
