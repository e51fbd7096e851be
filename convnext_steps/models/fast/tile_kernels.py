# mypy: ignore-errors
"""Vector code of the products of matrices: tiles of 8 rows and 32 columns, and what they read.

A word of 4 bytes is a float32 or, if `half`, a pair of bfloat16 from two rows of a factor, below
each other: AVX-512 has an instruction that multiplies 16 pairs with 16 others and adds the two
products of each to a float32. So both types take the same steps. A panel is 32 columns of words.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from convnext_steps.models.fast.depthwise_kernels import call_instruction
from convnext_steps.models.fast.elementwise_kernels import (
    A1,
    A2,
    A3,
    A4,
    A5,
    DENSITY,
    LOG2_E,
    P,
)

ROWS, COLUMNS = 8, 32  # of a tile: 16 registers of sums, enough to hide an addition's latency
WORD = 4  # bytes
PANEL = WORD * COLUMNS  # bytes of a row of a panel


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

# 2 to the power of x, x from 0 to 1, off by 1e-4 of it for bfloat16 (`half`), else by 3e-9.
_EXPONENTIAL = {
    half: np.polynomial.Chebyshev.interpolate(np.exp2, degree, [0, 1]).convert(
        kind=np.polynomial.Polynomial
    ).coef
    for half, degree in ((True, 3), (False, 6))
}  # fmt: skip


def _at(builder, address, offset, kind):
    """Return the pointer to what lies so many bytes (a number or a value) from an address."""
    offset = ir.Constant(address.type, offset) if isinstance(offset, int) else offset
    return builder.inttoptr(builder.add(address, offset), kind.as_pointer())


def _times(builder, value, factor):
    return builder.mul(value, ir.Constant(value.type, factor))


def _is_set(builder, value):
    return builder.icmp_signed("!=", value, ir.Constant(value.type, 0))


def _for_both(builder, half, emit):
    """Emit the code for either type, of which `half` chooses."""
    with builder.if_else(_is_set(builder, half)) as (then, otherwise):
        with then:
            emit(True)
        with otherwise:
            emit(False)


def _fma(builder, a, b, c):
    return call_instruction(builder, "llvm.fma.v16f32", _FLOATS, [a, b, c])


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


def _narrowed(builder, value):
    """Round 16 float32 to bfloat16."""
    value = call_instruction(builder, _INSTRUCTIONS + "cvtneps2bf16.512", _NARROW, [value])
    return builder.bitcast(value, _HALVES)


def _read(builder, address, offset=0):
    """Read 16 float32."""
    return builder.load(_at(builder, address, offset, _FLOATS), align=4)


def _write(builder, value, address, offset=0):
    """Write 16 float32, or whatever vector this is."""
    builder.store(value, _at(builder, address, offset, value.type), align=2)


@intrinsic
def fill_panels(typing, source, step, target, target_step, panels, half):
    """Write a row of words to panels: a row of 32 columns each, or two such rows as pairs."""

    def code(context, builder, signature, arguments):
        source, step, target, target_step, panels, half = arguments

        def fill(half):
            wide = ir.VectorType(ir.IntType(32), 32)
            with cgutils.for_range(builder, panels) as loop:
                width = 2 * COLUMNS if half else 4 * COLUMNS
                here = builder.add(source, _times(builder, loop.index, width))
                there = builder.add(target, builder.mul(loop.index, target_step))
                if half:
                    upper = builder.load(_at(builder, here, 0, _ROW), align=2)
                    lower = builder.load(_at(builder, here, step, _ROW), align=2)
                for part in (0, 1):
                    if half:
                        order = [16 * part + i // 2 + 32 * (i % 2) for i in range(32)]
                        words = builder.shuffle_vector(upper, lower, ir.Constant(wide, order))
                    else:
                        words = _read(builder, here, 64 * part)
                    _write(builder, words, there, 64 * part)

        _for_both(builder, half, fill)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), code


@intrinsic
def pair_weights(typing, source, step, target):
    """Write the pairs of two rows' 32 numbers, float32 that are rounded."""

    def code(context, builder, signature, arguments):
        source, step, target = arguments
        lower_row = builder.add(source, step)
        for part in (0, 1):
            upper, lower = (
                builder.zext(_narrowed(builder, _read(builder, row, 64 * part)), _WORDS)
                for row in (source, lower_row)
            )
            lower = builder.shl(lower, ir.Constant(_WORDS, [16] * 16))
            _write(builder, builder.or_(upper, lower), target, 64 * part)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), code


@intrinsic
def turn_weights(typing, source, step, target, half):
    """Write 16 x 16 words transposed, of float32 (rounded if `half`) in rows `step` bytes apart."""

    def code(context, builder, signature, arguments):
        source, step, target, half = arguments
        order = ir.Constant(ir.VectorType(ir.IntType(32), 32), list(range(32)))

        def words(start, half):
            if not half:
                return builder.bitcast(_read(builder, start), _WORDS)
            parts = [_narrowed(builder, _read(builder, start, offset)) for offset in (0, 64)]
            return builder.bitcast(builder.shuffle_vector(*parts, order), _WORDS)

        def turn(half):
            starts = [builder.add(source, _times(builder, step, row)) for row in range(16)]
            rows = [words(start, half) for start in starts]
            for bit in (8, 4, 2, 1):  # swap the halves, quarters, ... off the diagonal
                upper = [i + 16 - bit if i & bit else i for i in range(16)]
                lower = [i + 16 if i & bit else i + bit for i in range(16)]
                for row in range(16):
                    if not row & bit:
                        a, b = rows[row], rows[row | bit]
                        rows[row] = builder.shuffle_vector(a, b, ir.Constant(_WORDS, upper))
                        rows[row | bit] = builder.shuffle_vector(a, b, ir.Constant(_WORDS, lower))
            for row, value in enumerate(rows):
                _write(builder, value, target, PANEL * row)

        _for_both(builder, half, turn)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), code


def _add_products(builder, left, left_row, left_word, right, words, sums, half):
    """Add to each of 8 x 2 vectors the products of a row's words with a panel's."""
    starts = [builder.add(left, _times(builder, left_row, row)) for row in range(ROWS)]
    kind = _PAIRS if half else _FLOATS
    with cgutils.for_range(builder, words) as loop:
        panel = builder.add(right, _times(builder, loop.index, PANEL))
        factors = [builder.load(_at(builder, panel, 64 * part, kind), align=4) for part in (0, 1)]
        offset = builder.mul(loop.index, left_word)
        for start, row in zip(starts, sums, strict=True):
            word = builder.load(_at(builder, start, offset, ir.IntType(32)), align=2)
            one = builder.insert_element(ir.Constant(_WORDS, ir.Undefined), word, word.type(0))
            one = builder.shuffle_vector(one, one, ir.Constant(_WORDS, [0] * 16))
            one = builder.bitcast(one, kind)
            for factor, total in zip(factors, row, strict=True):
                value = builder.load(total)
                if half:
                    name = _INSTRUCTIONS + "dpbf16ps.512"
                    value = call_instruction(builder, name, _FLOATS, [value, one, factor])
                else:
                    value = _fma(builder, one, factor, value)
                builder.store(value, total)


def _registers(builder, values):
    return [[cgutils.alloca_once_value(builder, value) for value in values] for _ in range(ROWS)]


@intrinsic
def add_tile(typing, left, right, words, result, result_step, more, half):
    """Compute a tile of left's columns times right's, both panels; add it to the last if `more`."""

    def code(context, builder, signature, arguments):
        left, right, words, result, result_step, more, half = arguments
        sums = _registers(builder, [ir.Constant(_FLOATS, [0.0] * 16)] * 2)
        rows = [builder.add(result, _times(builder, result_step, row)) for row in range(ROWS)]
        step = ir.Constant(left.type, WORD), ir.Constant(left.type, PANEL)
        _for_both(
            builder,
            half,
            lambda half: _add_products(builder, left, *step, right, words, sums, half),
        )
        with builder.if_then(_is_set(builder, more)):  # sums of sums lose fewer digits
            for row, totals in zip(rows, sums, strict=True):
                for part, total in enumerate(totals):
                    value = builder.fadd(builder.load(total), _read(builder, row, 64 * part))
                    builder.store(value, total)
        for row, totals in zip(rows, sums, strict=True):
            for part, total in enumerate(totals):
                _write(builder, builder.load(total), row, 64 * part)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), code


def _scaled(builder, value, slope, total, half):
    """Multiply a vector with 16 numbers at `slope`, and add it to a total in memory."""
    if half:
        bits = builder.zext(builder.load(_at(builder, slope, 0, _HALVES), align=2), _WORDS)
        bits = builder.shl(bits, ir.Constant(_WORDS, [16] * 16))
        factor = builder.bitcast(bits, _FLOATS)
    else:
        factor = _read(builder, slope)
    value = builder.fmul(value, factor)
    _write(builder, builder.fadd(_read(builder, total), value), total)
    return value


def _power_of_two(builder, y, half):
    """Return 2 to the power of y, to more digits than the type has."""
    everything, nearest = ir.IntType(16)(0xFFFF), ir.IntType(32)(4)
    name = "llvm.x86.avx512.mask.%s.ps.512"
    below = ir.IntType(32)(1)  # the part of y above the next lower integer
    rest = call_instruction(builder, name % "reduce", _FLOATS, [y, below, y, everything, nearest])
    value = _series(builder, rest, _EXPONENTIAL[half])
    return call_instruction(
        builder, name % "scalef", _FLOATS, [value, y, value, everything, nearest]
    )


def _series(builder, x, terms):
    result = _number(terms[-1])
    for term in reversed(terms[:-1]):
        result = _fma(builder, result, x, _number(term))
    return result


def _number(value):
    return ir.Constant(_FLOATS, [float(value)] * 16)


def _gelu(builder, x, half):
    """Return GELU and its slope; infinities have none, as PyTorch's have none.

    The formula of the normal distribution is that of elementwise_kernels.py.
    """
    y = builder.fmul(builder.fmul(x, x), _number(-0.5 * LOG2_E))
    power = _power_of_two(builder, y, half)  # exp(-x * x / 2)
    size = call_instruction(builder, "llvm.fabs.v16f32", _FLOATS, [x])
    size = _fma(builder, size, _number(P), _number(1))
    arguments = [size, _number(0), ir.IntType(16)(0xFFFF)]
    t = call_instruction(builder, "llvm.x86.avx512.rcp14.ps.512", _FLOATS, arguments)
    if not half:  # a step of Newton's doubles the 14 bits
        t = builder.fmul(t, builder.fsub(_number(2), builder.fmul(size, t)))
    tail = builder.fmul(_series(builder, t, (A1, A2, A3, A4, A5)), builder.fmul(t, power))
    below = builder.fcmp_ordered("<", x, _number(0))
    share = builder.select(below, tail, builder.fsub(_number(1), tail))
    slope = _fma(builder, builder.fmul(x, _number(DENSITY)), power, share)
    return builder.fmul(x, share), slope


@intrinsic
def write_tile(typing, left, left_row, right, words, bias, target, slope, row, total, half):
    """Compute a tile of left's rows times right's panel, plus the bias.

    With a slope, multiply with it and add up the tile's columns in `total`; without a total, write
    GELU instead, and its slope there.
    """

    def code(context, builder, signature, arguments):
        left, left_row, right, words, bias, target, slope, row, total, half = arguments
        has_slope, has_total = _is_set(builder, slope), _is_set(builder, total)
        offsets = [_times(builder, row, number) for number in range(ROWS)]
        targets, slopes = ([builder.add(start, o) for o in offsets] for start in (target, slope))
        sums = _registers(builder, [_read(builder, bias, 64 * part) for part in (0, 1)])

        def multiply(half):
            lines = (0,) if half else (0, 64)  # of a row of the tile
            for there in targets:
                for line in lines:
                    _ask(builder, _at(builder, there, line, ir.IntType(8)), write=1, cache=1)
            with builder.if_then(has_slope):
                for there in slopes:
                    for line in lines:
                        _ask(builder, _at(builder, there, line, ir.IntType(8)), cache=1)
            step = ir.Constant(left.type, WORD)
            _add_products(builder, left, left_row, step, right, words, sums, half)
            with builder.if_else(has_slope) as (then, otherwise):
                with then, builder.if_else(has_total) as (scaled, activated):
                    with scaled:
                        write("scaled", half)
                    with activated:
                        write("activated", half)
                with otherwise:
                    write("plain", half)

        def write(how, half):
            for number, registers in enumerate(sums):
                for part, register in enumerate(registers):
                    value, offset = builder.load(register), (32 if half else 64) * part
                    place = ir.Constant(slope.type, offset)
                    other = builder.add(slopes[number], place)
                    if how == "scaled":
                        there = builder.add(total, ir.Constant(total.type, 64 * part))
                        value = _scaled(builder, value, other, there, half)
                    elif how == "activated":
                        value, derivative = _gelu(builder, value, half)
                        put(derivative, other, 0, half)
                    put(value, targets[number], offset, half)

        def put(value, address, offset, half):
            _write(builder, _narrowed(builder, value) if half else value, address, offset)

        _for_both(builder, half, multiply)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 10), code


@intrinsic
def clear_totals(typing, total):
    """Set a tile's 32 totals to zero."""

    def code(context, builder, signature, arguments):
        for part in (0, 1):
            _write(builder, ir.Constant(_FLOATS, [0.0] * 16), arguments[0], 64 * part)
        return context.get_dummy_value()

    return types.void(types.int64), code
