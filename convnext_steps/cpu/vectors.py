# mypy: ignore-errors
"""Vector instructions that numba has no words for, for the kernel of `kernels.py`.

A vector holds 16 channels of a pixel, or 8 without AVX-512. Addresses are plain integers and steps
are in bytes: one compilation serves all shapes and types (mypy can't follow numba's types, nor
LLVM's).
"""

from inspect import Parameter, Signature, signature

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

# The CPU's features as in the key of numba's cache: kernels of both widths may lie there.
_FEATURES = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
LANES = 16 if "+avx512f" in _FEATURES else 8  # channels in a vector, which fills a register
VECTOR = 4 * LANES  # its bytes in float32
PIXELS = 8  # running sums kept in registers by `sum_pixels`

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_WORDS = ir.VectorType(ir.IntType(32), LANES)
_HALVES = ir.VectorType(ir.IntType(16), LANES)


def _emits(function):
    """Make an intrinsic on integers of a function that emits its instructions."""
    names = ["typing", *list(signature(function).parameters)[1:]]

    def typed(typing, *integers):
        def code(context, builder, _, arguments):
            function(builder, *arguments)
            return context.get_dummy_value()

        return types.void(*[types.int64] * len(integers)), code

    kind = Parameter.POSITIONAL_OR_KEYWORD
    typed.__signature__ = Signature([Parameter(name, kind) for name in names])  # numba asks for it
    typed.__name__ = function.__name__
    return intrinsic(typed)


def _pointer(builder, address, kind):
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder, address, offset=0):
    address = builder.add(address, ir.Constant(address.type, offset))
    return builder.load(_pointer(builder, address, _FLOATS), align=4)


def _store(builder, value, address, offset=0):
    address = builder.add(address, ir.Constant(address.type, offset))
    builder.store(value, _pointer(builder, address, _FLOATS), align=4)


def _first(builder, lanes):
    """Return the mask of the first `lanes` lanes."""
    lanes, place = builder.trunc(lanes, ir.IntType(32)), ir.IntType(32)(0)
    one = builder.insert_element(ir.Constant(_WORDS, ir.Undefined), lanes, place)
    count = builder.shuffle_vector(one, one, ir.Constant(_WORDS, [0] * LANES))
    return builder.icmp_unsigned("<", ir.Constant(_WORDS, list(range(LANES))), count)


def _instruction(builder, name, result, arguments):
    """Call an instruction by the name that LLVM has for it."""
    kinds = [argument.type for argument in arguments]
    function = ir.FunctionType(result, kinds)
    function = cgutils.get_or_insert_function(builder.module, function, name)
    return builder.call(function, arguments)


def _multiply_add(builder, left, right, total):
    return _instruction(builder, f"llvm.fma.v{LANES}f32", _FLOATS, [left, right, total])


def _read(builder, address, lanes, half):
    """Read `lanes` channels, of bfloat16 if `half`, as a vector of float32; the others are 0."""
    kind = _HALVES if half else _FLOATS
    pointer = _pointer(builder, address, kind)
    if lanes is None:
        value = builder.load(pointer, align=2 if half else 4)
    else:
        align = ir.IntType(32)(2 if half else 4)
        zero = ir.Constant(kind, None) if half else ir.Constant(kind, [0.0] * LANES)
        arguments = [pointer, align, _first(builder, lanes), zero]
        name = f"llvm.masked.load.v{LANES}{'i16' if half else 'f32'}.p0"
        value = _instruction(builder, name, kind, arguments)
    if half:  # bfloat16 is the upper half of a float32
        value = builder.shl(builder.zext(value, _WORDS), ir.Constant(_WORDS, [16] * LANES))
        value = builder.bitcast(value, _FLOATS)
    return value


@_emits
def unpack_row(builder, source, source_step, target, count, lanes, half):
    """Copy `count` pixels of up to `LANES` channels into float32 vectors, side by side."""

    def emit(lanes, half):
        with cgutils.for_range(builder, count) as loop:
            here = builder.add(source, builder.mul(loop.index, source_step))
            there = builder.add(target, builder.mul(loop.index, ir.Constant(count.type, VECTOR)))
            _store(builder, _read(builder, here, lanes, half), there)

    # Four cases: float32 or bfloat16, all lanes or the first few.
    whole = builder.icmp_signed(">=", lanes, ir.Constant(lanes.type, LANES))
    is_half = builder.icmp_signed("!=", half, ir.Constant(half.type, 0))
    with builder.if_else(is_half) as (then, otherwise):
        for branch, kind in ((then, True), (otherwise, False)):
            with branch, builder.if_else(whole) as (all_lanes, some_lanes):
                with all_lanes:
                    emit(None, kind)
                with some_lanes:
                    emit(lanes, kind)


@_emits
def clear(builder, target, count):
    """Set `count` vectors to zero."""
    with cgutils.for_range(builder, count) as loop:
        here = builder.add(target, builder.mul(loop.index, ir.Constant(count.type, VECTOR)))
        _store(builder, ir.Constant(_FLOATS, [0.0] * LANES), here)


@_emits
def add_vectors(builder, source, target, count):
    """Add `count` vectors to others."""
    with cgutils.for_range(builder, count) as loop:
        offset = builder.mul(loop.index, ir.Constant(count.type, VECTOR))
        there = builder.add(target, offset)
        value = _load(builder, builder.add(source, offset))
        _store(builder, builder.fadd(value, _load(builder, there)), there)


@_emits
def sum_pixels(builder, source, count, target):
    """Add the sum of `count` vectors, a multiple of 8, to one vector."""
    zero = ir.Constant(_FLOATS, [0.0] * LANES)
    sums = [cgutils.alloca_once_value(builder, zero) for _ in range(PIXELS)]
    eighths = builder.udiv(count, ir.Constant(count.type, PIXELS))
    with cgutils.for_range(builder, eighths) as loop:
        step = ir.Constant(count.type, PIXELS * VECTOR)
        here = builder.add(source, builder.mul(loop.index, step))
        for index, total in enumerate(sums):
            pixel = _load(builder, here, index * VECTOR)
            builder.store(builder.fadd(pixel, builder.load(total)), total)
    value = _load(builder, target)
    for total in sums:
        value = builder.fadd(value, builder.load(total))
    _store(builder, value, target)


@_emits
def accumulate_taps(builder, source, row, column, slope, slope_row, rows, columns, totals, taps):
    """Add output gradient times pixel to the sums of a row of taps, over rows x columns."""
    for count in (3, 5, 7, 9, 11):  # KERNEL_SIZES of depthwise.py; as many registers
        with builder.if_then(builder.icmp_signed("==", taps, ir.Constant(taps.type, count))):
            sums = [
                cgutils.alloca_once_value(builder, _load(builder, totals, index * VECTOR))
                for index in range(count)
            ]
            with cgutils.for_range(builder, rows) as r, cgutils.for_range(builder, columns) as c:
                there = builder.add(slope, builder.mul(r.index, slope_row))
                step = ir.Constant(rows.type, VECTOR)
                gradient = _load(builder, builder.add(there, builder.mul(c.index, step)))
                here = builder.add(source, builder.mul(r.index, row))
                here = builder.add(here, builder.mul(c.index, column))
                for index, total in enumerate(sums):
                    pixel = _load(builder, here, index * VECTOR)
                    value = _multiply_add(builder, gradient, pixel, builder.load(total))
                    builder.store(value, total)
            for index, total in enumerate(sums):
                _store(builder, builder.load(total), totals, index * VECTOR)
