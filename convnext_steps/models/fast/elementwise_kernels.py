# mypy: ignore-errors
"""Compiled loops for what a ConvNeXt does between its matrix products, float32 or bfloat16.

As in depthwise_kernels.py addresses are integers, tasks are drawn from a shared counter, and each
result is one task's. The inner loops are plain: LLVM turns them into vectors.
"""

import math

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

from convnext_steps.models.fast.depthwise_kernels import compile_kernel, draw, fields

_CALL = "scratch counter tasks scratch_bytes "
GELU = fields(_CALL + "x target slope table count chunk")
GELU_GRADIENT = fields(_CALL + "gradient slope total rows channels chunk half")
RESIDUAL = fields(
    _CALL + "x branch gamma factors target rows image_rows channels chunk half_x half"
)
RESIDUAL_GRADIENT = fields(
    _CALL + "gradient branch gamma factors to_branch total rows image_rows channels chunk half"
)

# Without these a division could raise, and products would not be fused: no vectors.
_FAST = {"error_model": "numpy", "fastmath": {"contract"}}

F = np.float32
ONE, HALF, ZERO, WIDEST = F(1), F(0.5), F(0), F(13)  # beyond 13 the tail is below 1e-38
LOG2_E, LN_2_HIGH, LN_2_LOW = F(1 / math.log(2)), F(0.693359375), F(-2.12194440e-4)
ROUND = F(1.5 * 2**23)  # adding it rounds to an integer, kept in the lowest bits
E2, E3, E4, E5, E6 = (F(1 / math.factorial(n)) for n in range(2, 7))
DENSITY = F(1 / math.sqrt(2 * math.pi))
# 1 - erf as in Abramowitz and Stegun 7.1.26, the formula of PyTorch's own float32 GELU; halved.
P = F(0.3275911 / math.sqrt(2))
A1, A2, A3, A4, A5 = (
    F(a / 2) for a in (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
)
SIXTEEN, TWENTY_THREE = np.uint32(16), np.uint32(23)
BELOW_HALF, LAST_BIT = np.uint32(0x7FFF), np.uint32(1)


@intrinsic
def _float(typing, bits):
    return types.float32(types.uint32), lambda c, b, s, a: b.bitcast(a[0], ir.FloatType())


@intrinsic
def _bits(typing, value):
    return types.uint32(types.float32), lambda c, b, s, a: b.bitcast(a[0], ir.IntType(32))


def array_of(kind):
    """Make a function that takes an address for an array of a type."""
    result = types.CPointer(kind)

    @intrinsic
    def pointer(typing, address):
        def code(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(result))

        return result(types.int64), code

    return pointer


floats, halves = array_of(types.float32), array_of(types.uint16)


@njit(**_FAST)
def widen(half):
    """Return a bfloat16, the upper half of a float32, as float32."""
    return _float(np.uint32(half) << SIXTEEN)


@njit(**_FAST)
def narrow(value):
    """Return the nearest even bfloat16."""
    bits = _bits(value)
    rounded = (bits + BELOW_HALF + ((bits >> SIXTEEN) & LAST_BIT)) >> SIXTEEN
    return np.uint16(rounded if value == value else np.uint32(0x7FC0))


@njit(**_FAST)
def _normal(x):
    """Return the normal distribution up to x, and exp(-x * x / 2); NaN for NaN."""
    y = -HALF * x * x
    shifted = y * LOG2_E + ROUND
    power = shifted - ROUND
    r = (y - power * LN_2_HIGH) - power * LN_2_LOW
    e = ONE + r * (ONE + r * (E2 + r * (E3 + r * (E4 + r * (E5 + r * E6)))))
    e = _float(_bits(e) + (_bits(shifted) << TWENTY_THREE))
    t = ONE / (ONE + P * abs(x))
    tail = t * (A1 + t * (A2 + t * (A3 + t * (A4 + t * A5)))) * e
    return (tail if x < ZERO else ONE - tail), e


@compile_kernel(GELU, **_FAST)
def gelu(calls):
    """Write GELU and its slope, of bfloat16 from the table; a task is `chunk` numbers."""
    call = carray(calls, 1)[0]
    while True:
        task = draw(call.counter)
        if task >= call.tasks:
            break
        first = task * call.chunk
        count = min(call.chunk, call.count - first)
        if call.table:
            x, table = halves(call.x + 2 * first), halves(call.table)
            target, slope = halves(call.target + 2 * first), halves(call.slope + 2 * first)
            for i in range(count):
                place = 2 * np.int64(x[i])
                target[i] = table[place]
                slope[i] = table[place + 1]
        else:
            x32 = floats(call.x + 4 * first)
            target32, slope32 = floats(call.target + 4 * first), floats(call.slope + 4 * first)
            for i in range(count):
                z = -WIDEST if x32[i] < -WIDEST else x32[i]
                z = WIDEST if z > WIDEST else z
                share, e = _normal(z)
                target32[i] = x32[i] * share
                slope32[i] = share + z * DENSITY * e


@compile_kernel(GELU_GRADIENT, **_FAST)
def gelu_gradient(calls):
    """Multiply a gradient with the slope, in place, and sum its rows, `chunk` in a task."""
    call = carray(calls, 1)[0]
    channels = call.channels
    while True:
        task = draw(call.counter)
        if task >= call.tasks:
            break
        first = task * call.chunk
        total = floats(call.total + 4 * task * channels)
        for c in range(channels):
            total[c] = ZERO
        for row in range(first, min(first + call.chunk, call.rows)):
            start = row * channels
            if call.half:
                gradient, slope = halves(call.gradient + 2 * start), halves(call.slope + 2 * start)
                for c in range(channels):
                    value = widen(gradient[c]) * widen(slope[c])
                    gradient[c] = narrow(value)
                    total[c] += value
            else:
                gradient32 = floats(call.gradient + 4 * start)
                slope32 = floats(call.slope + 4 * start)
                for c in range(channels):
                    value = gradient32[c] * slope32[c]
                    gradient32[c] = value
                    total[c] += value


@njit(**_FAST)
def add_rows(call, task):
    """Add the scaled branch to the shortcut, in a task's `chunk` rows."""
    channels, gamma, factors = call.channels, floats(call.gamma), floats(call.factors)
    for row in range(task * call.chunk, min(call.rows, (task + 1) * call.chunk)):
        factor, start = factors[row // call.image_rows], row * channels
        target = floats(call.target + 4 * start)
        if call.half_x:
            x, branch = halves(call.x + 2 * start), halves(call.branch + 2 * start)
            for c in range(channels):
                target[c] = widen(x[c]) + gamma[c] * widen(branch[c]) * factor
        elif call.half:
            x32, branch = floats(call.x + 4 * start), halves(call.branch + 2 * start)
            for c in range(channels):
                target[c] = x32[c] + gamma[c] * widen(branch[c]) * factor
        else:
            x32, branch32 = floats(call.x + 4 * start), floats(call.branch + 4 * start)
            for c in range(channels):
                target[c] = x32[c] + gamma[c] * branch32[c] * factor


@njit(**_FAST)
def add_rows_gradient(call, task, result):
    """Scale the result's gradient to the branch's; sum gamma's and the branch's over a task.

    `result` is where row 0 of the branch's gradient is, or would be.
    """
    channels, gamma, factors = call.channels, floats(call.gamma), floats(call.factors)
    to_gamma = floats(call.total + 8 * task * channels)
    to_bias = floats(call.total + (8 * task + 4) * channels)
    for c in range(channels):
        to_gamma[c] = to_bias[c] = ZERO
    for row in range(task * call.chunk, min(call.rows, (task + 1) * call.chunk)):
        factor, start = factors[row // call.image_rows], row * channels
        gradient = floats(call.gradient + 4 * start)
        if call.half:
            branch = halves(call.branch + 2 * start)
            to_branch = halves(result + 2 * start)
            for c in range(channels):
                slope = gradient[c] * factor
                value = slope * gamma[c]
                to_branch[c] = narrow(value)
                to_bias[c] += value
                to_gamma[c] += slope * widen(branch[c])
        else:
            branch32 = floats(call.branch + 4 * start)
            to_branch32 = floats(result + 4 * start)
            for c in range(channels):
                slope = gradient[c] * factor
                value = slope * gamma[c]
                to_branch32[c] = value
                to_bias[c] += value
                to_gamma[c] += slope * branch32[c]


@compile_kernel(RESIDUAL, **_FAST)
def residual(calls):
    """Do tasks of `add_rows`."""
    call = carray(calls, 1)[0]
    while True:
        task = draw(call.counter)
        if task >= call.tasks:
            break
        add_rows(call, task)


@compile_kernel(RESIDUAL_GRADIENT, **_FAST)
def residual_gradient(calls):
    """Do tasks of `add_rows_gradient`."""
    call = carray(calls, 1)[0]
    while True:
        task = draw(call.counter)
        if task >= call.tasks:
            break
        add_rows_gradient(call, task, call.to_branch)
