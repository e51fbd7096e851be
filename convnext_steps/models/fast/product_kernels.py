# mypy: ignore-errors
"""Matrix products of bfloat16 with AVX-512's own instruction, compiled by numba.

It multiplies 16 pairs of numbers with 16 others and adds the two products of each to a float32.
Results are computed in tiles of 8 rows and 32 columns, whose sums stay in registers; factors that
do not lie in pairs already are copied, so that they do, to where the next-nearest cache holds them:
Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).

Rows must be a multiple of 8, all other sizes of 32. Else as in elementwise_kernels.py.
"""

import math

from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from convnext_steps.models.fast.depthwise_kernels import (
    call_instruction,
    compile_kernel,
    draw,
    fields,
)
from convnext_steps.models.fast.elementwise_kernels import (
    A1,
    A2,
    A3,
    A4,
    A5,
    DENSITY,
    LOG2_E,
    ROUND,
    WIDEST,
    P,
)

ROWS, COLUMNS = 8, 32  # of a tile: 16 registers of sums, enough to hide an addition's latency
PAIR = 4  # bytes
PANEL = PAIR * COLUMNS  # bytes of a row of pairs of a factor whose columns are cut into panels

_CALL = "scratch counter tasks scratch_bytes "
PACK = fields(_CALL + "source rows columns target turned")
ROWS_PRODUCT = fields(_CALL + "left right bias slope target total rows inner columns chunk group")
COLUMNS_PRODUCT = fields(
    _CALL
    + "left right total rows left_columns right_columns left_group right_group chunk block paired"
)


class _BFloat16(ir.types.Type):
    """The type that llvmlite lacks."""

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, _BFloat16)

    def __hash__(self):
        return hash(_BFloat16)


_FLOATS = ir.VectorType(ir.FloatType(), 16)
_WORDS = ir.VectorType(ir.IntType(32), 16)
_HALVES = ir.VectorType(ir.IntType(16), 16)
_NARROW = ir.VectorType(_BFloat16(), 16)
_PAIRS = ir.VectorType(_BFloat16(), 32)
_ROW = ir.VectorType(ir.IntType(16), 32)
_INSTRUCTIONS = "llvm.x86.avx512bf16."


def _at(builder, address, offset, kind):
    """Return the pointer to what lies so many bytes (a number or a value) from an address."""
    offset = ir.Constant(address.type, offset) if isinstance(offset, int) else offset
    return builder.inttoptr(builder.add(address, offset), kind.as_pointer())


def _times(builder, value, factor):
    return builder.mul(value, ir.Constant(value.type, factor))


def _ask(builder, pointer, write=0, cache=2):
    """Ask for a line of 64 bytes, as it will soon be read or written, in the cache of a level."""
    number = ir.IntType(32)
    options = [number(write), number(4 - cache), number(1)]  # the last: data
    call_instruction(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, *options])


@intrinsic
def prefetch(typing, address, count):
    """Ask for so many bytes, as they will soon be read."""

    def code(context, builder, signature, arguments):
        address, count = arguments
        lines = builder.udiv(count, ir.Constant(count.type, 64))
        with cgutils.for_range(builder, lines) as loop:
            _ask(builder, _at(builder, address, _times(builder, loop.index, 64), ir.IntType(8)))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code


@intrinsic
def pair_rows(typing, source, step, target, target_step, panels):
    """Write the pairs of two rows' numbers, `panels` panels of 32 columns."""

    def code(context, builder, signature, arguments):
        source, step, target, target_step, panels = arguments
        wide = ir.VectorType(ir.IntType(32), 32)
        with cgutils.for_range(builder, panels) as loop:
            here = builder.add(source, _times(builder, loop.index, 2 * COLUMNS))
            there = builder.add(target, builder.mul(loop.index, target_step))
            upper = builder.load(_at(builder, here, 0, _ROW), align=2)
            lower = builder.load(_at(builder, here, step, _ROW), align=2)
            for half in (0, 1):
                order = [16 * half + i // 2 + 32 * (i % 2) for i in range(32)]
                pairs = builder.shuffle_vector(upper, lower, ir.Constant(wide, order))
                builder.store(pairs, _at(builder, there, 64 * half, _ROW), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), code


def _narrowed(builder, value):
    """Round 16 float32 to bfloat16."""
    value = call_instruction(builder, _INSTRUCTIONS + "cvtneps2bf16.512", _NARROW, [value])
    return builder.bitcast(value, _HALVES)


def _loaded(builder, address, offset):
    """Read 16 float32 and round them to bfloat16."""
    return _narrowed(builder, builder.load(_at(builder, address, offset, _FLOATS), align=4))


@intrinsic
def pair_weights(typing, source, step, target):
    """Write the pairs of two rows' 32 numbers, float32 that are rounded."""

    def code(context, builder, signature, arguments):
        source, step, target = arguments
        for half in (0, 1):
            upper = builder.zext(_loaded(builder, source, 64 * half), _WORDS)
            lower = builder.add(source, step)
            lower = builder.zext(_loaded(builder, lower, 64 * half), _WORDS)
            lower = builder.shl(lower, ir.Constant(_WORDS, [16] * 16))
            place = _at(builder, target, 64 * half, _WORDS)
            builder.store(builder.or_(upper, lower), place, align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), code


@intrinsic
def turn_weights(typing, source, step, target):
    """Write 16 x 16 pairs, of float32 that are rounded and rows `step` bytes apart, transposed."""

    def code(context, builder, signature, arguments):
        source, step, target = arguments
        order = ir.Constant(ir.VectorType(ir.IntType(32), 32), list(range(32)))
        rows = []
        for row in range(16):
            start = builder.add(source, _times(builder, step, row))
            halves = [_loaded(builder, start, offset) for offset in (0, 64)]
            rows.append(builder.bitcast(builder.shuffle_vector(*halves, order), _WORDS))
        for bit in (8, 4, 2, 1):  # swap the halves, quarters, ... off the diagonal
            upper = [i + 16 - bit if i & bit else i for i in range(16)]
            lower = [i + 16 if i & bit else i + bit for i in range(16)]
            for row in range(16):
                if not row & bit:
                    a, b = rows[row], rows[row | bit]
                    rows[row] = builder.shuffle_vector(a, b, ir.Constant(_WORDS, upper))
                    rows[row | bit] = builder.shuffle_vector(a, b, ir.Constant(_WORDS, lower))
        for row, value in enumerate(rows):
            builder.store(value, _at(builder, target, PANEL * row, _WORDS), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), code


def _add_products(builder, left, left_row, left_pair, right, pairs, sums):
    """Add to each of 8 x 2 vectors the products of a row's pairs with a panel's."""
    starts = [builder.add(left, _times(builder, left_row, row)) for row in range(ROWS)]
    with cgutils.for_range(builder, pairs) as loop:
        panel = builder.add(right, _times(builder, loop.index, PANEL))
        factors = [builder.load(_at(builder, panel, 64 * half, _PAIRS), align=4) for half in (0, 1)]
        offset = builder.mul(loop.index, left_pair)
        for start, row in zip(starts, sums, strict=True):
            pair = builder.load(_at(builder, start, offset, ir.IntType(32)), align=2)
            one = builder.insert_element(ir.Constant(_WORDS, ir.Undefined), pair, pair.type(0))
            one = builder.shuffle_vector(one, one, ir.Constant(_WORDS, [0] * 16))
            one = builder.bitcast(one, _PAIRS)
            for factor, total in zip(factors, row, strict=True):
                arguments = [builder.load(total), one, factor]
                value = call_instruction(
                    builder, _INSTRUCTIONS + "dpbf16ps.512", _FLOATS, arguments
                )
                builder.store(value, total)


def _registers(builder, values):
    return [[cgutils.alloca_once_value(builder, value) for value in values] for _ in range(ROWS)]


@intrinsic
def add_tile(typing, left, right, pairs, result, result_step, more):
    """Compute a tile of left's columns times right's, both panels; add it to the last if `more`."""

    def code(context, builder, signature, arguments):
        left, right, pairs, result, result_step, more = arguments
        sums = _registers(builder, [ir.Constant(_FLOATS, [0.0] * 16)] * 2)
        rows = [builder.add(result, _times(builder, result_step, row)) for row in range(ROWS)]
        places = [[_at(builder, row, 64 * half, _FLOATS) for half in (0, 1)] for row in rows]
        with builder.if_then(builder.icmp_signed("!=", more, ir.Constant(more.type, 0))):
            for row, totals in zip(places, sums, strict=True):
                for place, total in zip(row, totals, strict=True):
                    builder.store(builder.load(place, align=4), total)
        step = ir.Constant(left.type, PAIR), ir.Constant(left.type, PANEL)
        _add_products(builder, left, *step, right, pairs, sums)
        for row, totals in zip(places, sums, strict=True):
            for place, total in zip(row, totals, strict=True):
                builder.store(builder.load(total), place, align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), code


def _scaled(builder, value, slope, total):
    """Multiply a vector with 16 bfloat16, and add it to a total in memory."""
    slope = builder.zext(builder.load(slope, align=2), _WORDS)
    slope = builder.shl(slope, ir.Constant(_WORDS, [16] * 16))
    value = builder.fmul(value, builder.bitcast(slope, _FLOATS))
    builder.store(builder.fadd(builder.load(total, align=4), value), total, align=4)
    return value


def _gelu(builder, x):
    """Return GELU and its slope, to more digits than bfloat16 has.

    The formulas are those of elementwise_kernels.py, the exponential's with fewer terms.
    """

    def number(value):
        return ir.Constant(_FLOATS, [float(value)] * 16)

    def fma(a, b, c):
        return call_instruction(builder, "llvm.fma.v16f32", _FLOATS, [a, b, c])

    def series(x, *terms):
        result = number(terms[-1])
        for term in reversed(terms[:-1]):
            result = fma(result, x, number(term))
        return result

    def bits(value):
        return builder.bitcast(value, _WORDS)

    z = call_instruction(builder, "llvm.minnum.v16f32", _FLOATS, [x, number(WIDEST)])
    z = call_instruction(builder, "llvm.maxnum.v16f32", _FLOATS, [z, number(-WIDEST)])
    y = builder.fmul(builder.fmul(z, z), number(-0.5 * LOG2_E))
    shifted = builder.fadd(y, number(ROUND))
    rest = builder.fsub(y, builder.fsub(shifted, number(ROUND)))  # from -1/2 to 1/2
    power = series(rest, *(math.log(2) ** n / math.factorial(n) for n in range(5)))
    shift = builder.shl(bits(shifted), ir.Constant(_WORDS, [23] * 16))
    power = builder.bitcast(builder.add(bits(power), shift), _FLOATS)  # exp(-z * z / 2)
    size = call_instruction(builder, "llvm.fabs.v16f32", _FLOATS, [z])
    size = fma(size, number(P), number(1))
    arguments = [size, number(0), ir.Constant(ir.IntType(16), 0xFFFF)]
    t = call_instruction(builder, "llvm.x86.avx512.rcp14.ps.512", _FLOATS, arguments)
    tail = builder.fmul(builder.fmul(series(t, A1, A2, A3, A4, A5), t), power)
    below = builder.fcmp_ordered("<", z, number(0))
    share = builder.select(below, tail, builder.fsub(number(1), tail))
    slope = fma(builder.fmul(z, number(DENSITY)), power, share)
    unordered = builder.fcmp_unordered("uno", x, x)
    return builder.fmul(x, share), builder.select(unordered, x, slope)


@intrinsic
def write_tile(typing, left, left_row, right, pairs, bias, target, slope, row, total):
    """Compute a tile of left's rows times right's panel, plus the bias, as bfloat16.

    With a slope, multiply with it and add up the tile's columns in `total`; without a total, write
    GELU instead, and its slope there.
    """

    def code(context, builder, signature, arguments):
        left, left_row, right, pairs, bias, target, slope, row, total = arguments
        halves = [builder.load(_at(builder, bias, 64 * half, _FLOATS), align=4) for half in (0, 1)]
        sums = _registers(builder, halves)
        offsets = [_times(builder, row, number) for number in range(ROWS)]
        targets, slopes = ([builder.add(start, o) for o in offsets] for start in (target, slope))
        has_slope, has_total = (
            builder.icmp_signed("!=", value, ir.Constant(value.type, 0)) for value in (slope, total)
        )
        for there in targets:
            _ask(builder, _at(builder, there, 0, ir.IntType(8)), write=1, cache=1)
        with builder.if_then(has_slope):
            for there in slopes:
                _ask(builder, _at(builder, there, 0, ir.IntType(8)), cache=1)
        _add_products(builder, left, left_row, ir.Constant(left.type, PAIR), right, pairs, sums)

        def write(how):
            for number, registers in enumerate(sums):
                for half, register in enumerate(registers):
                    value, offset = builder.load(register), 32 * half
                    other = _at(builder, slopes[number], offset, _HALVES)
                    if how == "scaled":
                        place = _at(builder, total, 2 * offset, _FLOATS)
                        value = _scaled(builder, value, other, place)
                    elif how == "activated":
                        value, derivative = _gelu(builder, value)
                        builder.store(_narrowed(builder, derivative), other, align=2)
                    there = _at(builder, targets[number], offset, _HALVES)
                    builder.store(_narrowed(builder, value), there, align=2)

        with builder.if_else(has_slope) as (then, otherwise):
            with then, builder.if_else(has_total) as (scaled, activated):
                with scaled:
                    write("scaled")
                with activated:
                    write("activated")
            with otherwise:
                write("plain")
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9), code


@intrinsic
def clear_totals(typing, total):
    """Set a tile's 32 totals to zero."""

    def code(context, builder, signature, arguments):
        for half in (0, 1):
            place = _at(builder, arguments[0], 64 * half, _FLOATS)
            builder.store(ir.Constant(_FLOATS, [0.0] * 16), place, align=4)
        return context.get_dummy_value()

    return types.void(types.int64), code


@compile_kernel(PACK)
def pack(calls):
    """Cut a float32 factor, or its transpose, into panels of bfloat16 pairs, one in a task."""
    call = carray(calls, 1)[0]
    row = 4 * call.columns
    while True:
        task = draw(call.counter)
        if task >= call.tasks:
            break
        if call.turned:
            pairs = call.columns // 2
            for half in range(2):
                source = call.source + (COLUMNS * task + 16 * half) * row
                for pair in range(0, pairs, 16):
                    target = call.target + PANEL * (task * pairs + pair) + 64 * half
                    turn_weights(source + 8 * pair, row, target)
        else:
            pairs = call.rows // 2
            source = call.source + 4 * COLUMNS * task
            for pair in range(pairs):
                target = call.target + PANEL * (task * pairs + pair)
                pair_weights(source + 2 * pair * row, row, target)


@njit
def pair_chunk(source, target, first, last, rows, columns):
    """Write rows `first` to `last`, whose first is at `source`, to panels of the pairs of all."""
    step = 2 * columns
    for row in range(first, last, 2):
        there = target + PANEL * (row // 2)
        pair_rows(source + (row - first) * step, step, there, rows // 2 * PANEL, columns // COLUMNS)


@njit
def multiply_rows(call, task, source, result):
    """Multiply a task's `chunk` rows with `group` panels of a packed factor.

    `source` and `result` are where row 0 of the left factor and of the product are, or would be.
    """
    panels, pairs = call.columns // COLUMNS, call.inner // 2
    groups = (panels + call.group - 1) // call.group
    left_row, target_row = 2 * call.inner, 2 * call.columns
    chunk, first_panel = task // groups, task % groups * call.group
    first, last = chunk * call.chunk, min(call.rows, (chunk + 1) * call.chunk)
    for panel in range(first_panel, min(panels, first_panel + call.group)):
        right, bias = call.right + PANEL * pairs * panel, call.bias + PANEL * panel
        total = call.total + PANEL * (chunk * panels + panel) if call.total else 0
        if total:
            clear_totals(total)
        for row in range(first, last, ROWS):
            left = source + row * left_row
            if panel == first_panel and row + ROWS < last:
                prefetch(left + ROWS * left_row, ROWS * left_row)
            offset = row * target_row + 2 * COLUMNS * panel
            slope = call.slope + offset if call.slope else 0
            write_tile(left, left_row, right, pairs, bias, result + offset, slope, target_row,
                       total)  # fmt: skip


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
def multiply_panels(left, right, size, counts, pairs, result, row, more):
    """Compute or add to all tiles of so many panels of both factors, `size` bytes apart.

    Meanwhile ask for what lies behind these pairs, which comes next.
    """
    behind = pairs * PANEL
    left_part, right_part = behind // counts[1], behind // counts[0]
    for i in range(counts[0]):
        for j in range(counts[1]):
            prefetch(left + i * size + behind + j * left_part, left_part)
            prefetch(right + j * size + behind + i * right_part, right_part)
            for first in range(0, COLUMNS, ROWS):
                here = result + (i * COLUMNS + first) * row + PANEL * j
                add_tile(left + i * size + PAIR * first, right + j * size, pairs, here,
                         row, more)  # fmt: skip


@compile_kernel(COLUMNS_PRODUCT)
def columns_product(calls):
    """Multiply columns with columns; a task is a group of each, over `chunk` rows.

    `block` rows at a time; unless they are panels of pairs already, they are cut into such.
    """
    call = carray(calls, 1)[0]
    scratch = call.scratch + draw(call.counter + 8) * call.scratch_bytes
    left_row, right_row = 2 * call.left_columns, 2 * call.right_columns
    groups = call.left_columns // call.left_group, call.right_columns // call.right_group
    counts = call.left_group // COLUMNS, call.right_group // COLUMNS
    size = (call.rows if call.paired else call.block) // 2 * PANEL
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
            if call.paired:
                left = call.left + left_first // COLUMNS * size + first // 2 * PANEL
                right = call.right + right_first // COLUMNS * size + first // 2 * PANEL
            else:
                left, right = scratch, scratch + counts[0] * size
                for row in range(first, last, 2):
                    there = (row - first) // 2 * PANEL
                    pair_rows(call.left + row * left_row + 2 * left_first, left_row, left + there,
                              size, counts[0])  # fmt: skip
                    pair_rows(call.right + row * right_row + 2 * right_first, right_row,
                              right + there, size, counts[1])  # fmt: skip
            multiply_panels(left, right, size, counts, (last - first) // 2, total,
                            4 * call.right_columns, first > start)  # fmt: skip
