# mypy: ignore-errors
"""What a ConvNeXt block does to each position by itself, one chunk of positions after another.

So a chunk stays in the processor's cache from step to step. Else as in product_kernels.py.
"""

from numba import carray, from_dtype

from convnext_steps.models.fast.depthwise_kernels import compile_kernel, draw, fields
from convnext_steps.models.fast.elementwise_kernels import (
    RESIDUAL,
    RESIDUAL_GRADIENT,
    add_rows,
    add_rows_gradient,
    array_of,
)
from convnext_steps.models.fast.norm_kernels import (
    LAYER_NORM,
    LAYER_NORM_GRADIENT,
    normalise_rows,
    normalise_rows_gradient,
)
from convnext_steps.models.fast.product_kernels import ROWS_PRODUCT, fill_chunk, multiply_rows

CHAIN = fields("scratch counter tasks scratch_bytes first second third fourth")

_norm, _norm_gradient = array_of(from_dtype(LAYER_NORM)), array_of(from_dtype(LAYER_NORM_GRADIENT))
_residual, _product = array_of(from_dtype(RESIDUAL)), array_of(from_dtype(ROWS_PRODUCT))
_residual_gradient = array_of(from_dtype(RESIDUAL_GRADIENT))


@compile_kernel(CHAIN)
def block(calls):
    """Normalise, expand, shrink and add a task's rows; keep panels for the weights' gradients."""
    call = carray(calls, 1)[0]
    norm, residual = carray(_norm(call.first), 1)[0], carray(_residual(call.fourth), 1)[0]
    expand, shrink = carray(_product(call.second), 1)[0], carray(_product(call.third), 1)[0]
    rows, narrow, wide = norm.rows, expand.inner, expand.columns
    half, size = expand.half, 2 if expand.half else 4
    scratch = call.scratch + draw(call.counter + 8) * call.scratch_bytes
    narrow_rows = scratch + 8 * narrow
    wide_rows = narrow_rows + size * norm.chunk * narrow
    while True:
        task = draw(call.counter)
        if task >= call.tasks:
            break
        first, last = task * norm.chunk, min(rows, (task + 1) * norm.chunk)
        normed = narrow_rows - size * first * narrow
        activated = wide_rows - size * first * wide
        normalise_rows(norm, task, scratch, normed)
        fill_chunk(narrow_rows, norm.target, first, last, rows, narrow, half)
        multiply_rows(expand, task, normed, activated)
        fill_chunk(wide_rows, expand.target, first, last, rows, wide, half)
        multiply_rows(shrink, task, activated, shrink.target)
        add_rows(residual, task)


@compile_kernel(CHAIN)
def block_gradient(calls):
    """Take the gradient of a task's rows back from the sum to what was normalised.

    What the weights' gradients need is kept as panels.
    """
    call = carray(calls, 1)[0]
    norm = carray(_norm_gradient(call.fourth), 1)[0]
    residual = carray(_residual_gradient(call.first), 1)[0]
    shrink, expand = carray(_product(call.second), 1)[0], carray(_product(call.third), 1)[0]
    rows, narrow, wide = norm.rows, shrink.inner, shrink.columns
    half, size = shrink.half, 2 if shrink.half else 4
    scratch = call.scratch + draw(call.counter + 8) * call.scratch_bytes
    narrow_rows = scratch + 8 * narrow
    wide_rows = narrow_rows + size * norm.chunk * narrow
    while True:
        task = draw(call.counter)
        if task >= call.tasks:
            break
        first, last = task * norm.chunk, min(rows, (task + 1) * norm.chunk)
        narrow_zero = narrow_rows - size * first * narrow
        to_hidden = wide_rows - size * first * wide
        add_rows_gradient(residual, task, narrow_zero)
        fill_chunk(narrow_rows, residual.to_branch, first, last, rows, narrow, half)
        multiply_rows(shrink, task, narrow_zero, to_hidden)
        fill_chunk(wide_rows, shrink.target, first, last, rows, wide, half)
        multiply_rows(expand, task, to_hidden, narrow_zero)
        normalise_rows_gradient(norm, task, scratch, narrow_zero)
