# mypy: ignore-errors
"""Products of float32 or bfloat16 matrices with AVX-512, compiled by numba.

Results are computed in tiles of 8 rows and 32 columns, whose sums stay in registers; factors that
are not panels of words already (tile_kernels.py) are copied, so that they are, to where the
next-nearest cache holds them: Goto and van de Geijn, "Anatomy of High-Performance Matrix
Multiplication" (2008).

Rows must be a multiple of 8, all other sizes of 32. Else as in elementwise_kernels.py.
"""

from numba import carray, njit

from convnext_steps.models.fast.depthwise_kernels import compile_kernel, draw, fields
from convnext_steps.models.fast.tile_kernels import (
    COLUMNS,
    PANEL,
    ROWS,
    WORD,
    add_tile,
    clear_totals,
    fill_panels,
    pair_weights,
    prefetch,
    turn_weights,
    write_tile,
)

_CALL = "scratch counter tasks scratch_bytes half "
PACK = fields(_CALL + "source rows columns target turned")
ROWS_PRODUCT = fields(_CALL + "left right bias slope target total rows inner columns chunk group")
COLUMNS_PRODUCT = fields(
    _CALL
    + "left right total rows left_columns right_columns left_group right_group chunk block filled"
)


@compile_kernel(PACK)
def pack(calls):
    """Cut a float32 factor, or its transpose, into panels of words, one in a task."""
    call = carray(calls, 1)[0]
    row, word_rows = 4 * call.columns, 2 if call.half else 1
    while True:
        task = draw(call.counter)
        if task >= call.tasks:
            break
        if call.turned:
            words = call.columns // word_rows
            for part in range(2):
                source = call.source + (COLUMNS * task + 16 * part) * row
                for word in range(0, words, 16):
                    target = call.target + PANEL * (task * words + word) + 64 * part
                    turn_weights(source + WORD * word_rows * word, row, target, call.half)
        else:
            words = call.rows // word_rows
            source = call.source + WORD * COLUMNS * task
            for word in range(words):
                target = call.target + PANEL * (task * words + word)
                if call.half:
                    pair_weights(source + 2 * word * row, row, target)
                else:
                    fill_panels(source + word * row, 0, target, 0, 1, 0)


@njit
def fill_chunk(source, target, first, last, rows, columns, half):
    """Write rows `first` to `last`, whose first is at `source`, to panels of the words of all."""
    step, word_rows = (2 * columns, 2) if half else (4 * columns, 1)
    for row in range(first, last, word_rows):
        there = target + PANEL * (row // word_rows)
        fill_panels(source + (row - first) * step, step, there, rows // word_rows * PANEL,
                    columns // COLUMNS, half)  # fmt: skip


@njit
def multiply_rows(call, task, source, result):
    """Multiply a task's `chunk` rows with `group` panels of a packed factor.

    `source` and `result` are where row 0 of the left factor and of the product are, or would be.
    """
    size = 2 if call.half else 4
    panels, words = call.columns // COLUMNS, call.inner * size // WORD
    groups = (panels + call.group - 1) // call.group
    left_row, target_row = size * call.inner, size * call.columns
    chunk, first_panel = task // groups, task % groups * call.group
    first, last = chunk * call.chunk, min(call.rows, (chunk + 1) * call.chunk)
    for panel in range(first_panel, min(panels, first_panel + call.group)):
        right, bias = call.right + PANEL * words * panel, call.bias + PANEL * panel
        total = call.total + PANEL * (chunk * panels + panel) if call.total else 0
        if total:
            clear_totals(total)
        for row in range(first, last, ROWS):
            left = source + row * left_row
            if panel == first_panel and row + ROWS < last:
                prefetch(left + ROWS * left_row, ROWS * left_row)
            offset = row * target_row + size * COLUMNS * panel
            slope = call.slope + offset if call.slope else 0
            write_tile(left, left_row, right, words, bias, result + offset, slope, target_row,
                       total, call.half)  # fmt: skip


@compile_kernel(ROWS_PRODUCT)
def rows_product(calls):
    """Do tasks of `multiply_rows`."""
    call = carray(calls, 1)[0]
    while True:
        task = draw(call.counter)
        if task >= call.tasks:
            break
        multiply_rows(call, task, call.left, call.target)


@njit
def multiply_panels(left, right, size, counts, words, result, row, more, half):
    """Compute or add to all tiles of so many panels of both factors, `size` bytes apart.

    Meanwhile ask for what lies behind these words, which comes next.
    """
    behind = words * PANEL
    left_part, right_part = behind // counts[1], behind // counts[0]
    for i in range(counts[0]):
        for j in range(counts[1]):
            prefetch(left + i * size + behind + j * left_part, left_part)
            prefetch(right + j * size + behind + i * right_part, right_part)
            for first in range(0, COLUMNS, ROWS):
                here = result + (i * COLUMNS + first) * row + PANEL * j
                add_tile(left + i * size + WORD * first, right + j * size, words, here, row,
                         more, half)  # fmt: skip


@compile_kernel(COLUMNS_PRODUCT)
def columns_product(calls):
    """Multiply columns with columns; a task is a group of each, over `chunk` rows.

    `block` rows at a time; unless they are `filled` panels already, they are cut into such.
    """
    call = carray(calls, 1)[0]
    scratch = call.scratch + draw(call.counter + 8) * call.scratch_bytes
    size, word_rows = (2, 2) if call.half else (4, 1)
    left_row, right_row = size * call.left_columns, size * call.right_columns
    groups = call.left_columns // call.left_group, call.right_columns // call.right_group
    counts = call.left_group // COLUMNS, call.right_group // COLUMNS
    panel = (call.rows if call.filled else call.block) // word_rows * PANEL
    while True:
        task = draw(call.counter)
        if task >= call.tasks:
            break
        chunk = task // (groups[0] * groups[1])
        left_first = task // groups[1] % groups[0] * call.left_group
        right_first = task % groups[1] * call.right_group
        total = call.total + 4 * (chunk * call.left_columns + left_first) * call.right_columns
        total += 4 * right_first
        start, end = chunk * call.chunk, min(call.rows, (chunk + 1) * call.chunk)
        for first in range(start, end, call.block):
            last = min(end, first + call.block)
            if call.filled:
                skipped = first // word_rows * PANEL
                left = call.left + left_first // COLUMNS * panel + skipped
                right = call.right + right_first // COLUMNS * panel + skipped
            else:
                left, right = scratch, scratch + counts[0] * panel
                for row in range(first, last, word_rows):
                    there = (row - first) // word_rows * PANEL
                    fill_panels(call.left + row * left_row + size * left_first, left_row,
                                left + there, panel, counts[0], call.half)  # fmt: skip
                    fill_panels(call.right + row * right_row + size * right_first, right_row,
                                right + there, panel, counts[1], call.half)  # fmt: skip
            multiply_panels(left, right, panel, counts, (last - first) // word_rows, total,
                            4 * call.right_columns, first > start, call.half)  # fmt: skip
