# mypy: ignore-errors
"""The loops of a depthwise convolution's gradients, compiled by numba.

Maps are channels-last, so one vector holds 16 channels of a pixel, or 8 without AVX-512. A task
copies its pixels to a float32 scratch that stays in the processor's cache (bfloat16 is widened
there, once a pixel and not once a tap), and keeps its running sums in registers, as in Zhang,
Franchetti and Low, "High Performance Zero-Memory Overhead Direct Convolutions" (2018).

Addresses are plain integers and steps are in bytes: one compilation serves all shapes and types
(mypy can't follow numba's types, nor LLVM's). Tasks are drawn from a shared counter, so any number
of threads may run a kernel on one call; each result is one task's, so the bits don't depend on it.

"""

import hashlib
from pathlib import Path

import numpy as np
from llvmlite import ir
from llvmlite.binding import llvm_version_info
from numba import carray, cfunc, from_dtype, njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

# The processor's features as in the key of numba's cache: kernels of both widths may lie there.
_FEATURES = cpu_target.target_context.codegen().magic_tuple()[2].split(",")

# Whether product_kernels.py is worth it. Not beside Intel's AMX, which oneDNN uses: in bfloat16
# that is faster by far, and in float32 the kernels were not tried there.
MULTIPLIES_MATRICES = (
    "+avx512bf16" in _FEATURES and "+amx-bf16" not in _FEATURES and llvm_version_info >= (20,)
)
LANES = 16 if "+avx512f" in _FEATURES else 8  # channels in a vector, which fills a register
VECTOR = 4 * LANES  # its bytes in float32
PIXELS = 8  # running sums kept in registers by `correlate_pixels`

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_WORDS = ir.VectorType(ir.IntType(32), LANES)
_HALVES = ir.VectorType(ir.IntType(16), LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)


def fields(names: str) -> np.dtype:
    """Return the type of a record of integers with these names."""
    return np.dtype([(name, np.int64) for name in names.split()])


# What a kernel is told: the convolution's shapes, this call's plan, addresses.
_JOB = "images channels rows columns out_rows out_columns kernel stride padding half wide "
_CALL = "scratch counter tasks slab_bytes scratch_bytes slab_columns "
INPUT_GRADIENT = fields(_JOB + _CALL + "source target taps phases together left")
WEIGHT_GRADIENT = fields(_JOB + _CALL + "source gradient total slope_bytes chunk tile")
PHASE = fields("taps last_tap first_out outs start")  # one axis, see `Phase` in depthwise_plans.py


# --- Vector instructions that numba has no words for ------------------------------------------


def _pointer(builder, address, kind):
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder, address, offset=0):
    address = builder.add(address, ir.Constant(address.type, offset))
    return builder.load(_pointer(builder, address, _FLOATS), align=4)


def _store(builder, value, address, offset=0):
    address = builder.add(address, ir.Constant(address.type, offset))
    builder.store(value, _pointer(builder, address, _FLOATS), align=4)


def _splat(builder, value, kind):
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, one, ir.Constant(_WORDS, [0] * LANES))


def _first(builder, lanes):
    """Return the mask of the first `lanes` lanes."""
    count = _splat(builder, builder.trunc(lanes, ir.IntType(32)), _WORDS)
    return builder.icmp_unsigned("<", ir.Constant(_WORDS, list(range(LANES))), count)


def call_instruction(builder, name, result, arguments):
    """Call an instruction by the name that LLVM has for it."""
    kinds = [argument.type for argument in arguments]
    function = ir.FunctionType(result, kinds)
    function = cgutils.get_or_insert_function(builder.module, function, name)
    return builder.call(function, arguments)


def _multiply_add(builder, left, right, total):
    return call_instruction(builder, f"llvm.fma.v{LANES}f32", _FLOATS, [left, right, total])


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
        value = call_instruction(builder, name, kind, arguments)
    if half:  # bfloat16 is the upper half of a float32
        value = builder.shl(builder.zext(value, _WORDS), ir.Constant(_WORDS, [16] * LANES))
        value = builder.bitcast(value, _FLOATS)
    return value


def _write(builder, value, address, lanes, half):
    """Write the first `lanes` channels, rounded to the nearest even bfloat16 if `half`."""
    if half:
        bits = builder.bitcast(value, _WORDS)
        shift = ir.Constant(_WORDS, [16] * LANES)
        odd = builder.and_(builder.lshr(bits, shift), ir.Constant(_WORDS, [1] * LANES))
        up = builder.add(odd, ir.Constant(_WORDS, [0x7FFF] * LANES))
        rounded = builder.lshr(builder.add(bits, up), shift)
        quiet = ir.Constant(_WORDS, [0x7FC0] * LANES)  # rounding could carry a NaN to infinity
        rounded = builder.select(builder.fcmp_unordered("uno", value, value), quiet, rounded)
        value = builder.trunc(rounded, _HALVES)
    kind = _HALVES if half else _FLOATS
    pointer = _pointer(builder, address, kind)
    if lanes is None:
        builder.store(value, pointer, align=2 if half else 4)
    else:
        align = ir.IntType(32)(2 if half else 4)
        arguments = [value, pointer, align, _first(builder, lanes)]
        name = f"llvm.masked.store.v{LANES}{'i16' if half else 'f32'}.p0"
        call_instruction(builder, name, ir.VoidType(), arguments)


def _branch_on_kind(builder, half, lanes, emit):
    """Emit the four cases (float32 or bfloat16) x (all lanes or the first few)."""
    whole = builder.icmp_signed(">=", lanes, ir.Constant(lanes.type, LANES))
    is_half = builder.icmp_signed("!=", half, ir.Constant(half.type, 0))
    with builder.if_else(is_half) as (then, otherwise):
        for branch, kind in ((then, True), (otherwise, False)):
            with branch, builder.if_else(whole) as (all_lanes, some_lanes):
                with all_lanes:
                    emit(None, kind)
                with some_lanes:
                    emit(lanes, kind)


@intrinsic
def unpack_row(typing, source, source_step, target, target_step, count, lanes, half):
    """Copy `count` pixels of up to `LANES` channels into float32 vectors."""

    def code(context, builder, signature, arguments):
        source, source_step, target, target_step, count, lanes, half = arguments

        def emit(lanes, half):
            with cgutils.for_range(builder, count) as loop:
                here = builder.add(source, builder.mul(loop.index, source_step))
                there = builder.add(target, builder.mul(loop.index, target_step))
                _store(builder, _read(builder, here, lanes, half), there)

        _branch_on_kind(builder, half, lanes, emit)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), code


@intrinsic
def pack_row(typing, source, target, target_step, count, lanes, half):
    """Copy `count` float32 vectors, side by side, out to pixels of up to `LANES` channels."""

    def code(context, builder, signature, arguments):
        source, target, target_step, count, lanes, half = arguments

        def emit(lanes, half):
            with cgutils.for_range(builder, count) as loop:
                here = builder.add(source, builder.mul(loop.index, ir.Constant(count.type, VECTOR)))
                there = builder.add(target, builder.mul(loop.index, target_step))
                _write(builder, _load(builder, here), there, lanes, half)

        _branch_on_kind(builder, half, lanes, emit)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), code


@intrinsic
def clear(typing, target, count):
    """Set `count` vectors to zero."""

    def code(context, builder, signature, arguments):
        target, count = arguments
        with cgutils.for_range(builder, count) as loop:
            here = builder.add(target, builder.mul(loop.index, ir.Constant(count.type, VECTOR)))
            _store(builder, ir.Constant(_FLOATS, [0.0] * LANES), here)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code


@intrinsic
def add_vectors(typing, source, target, count):
    """Add `count` vectors to others."""

    def code(context, builder, signature, arguments):
        source, target, count = arguments
        with cgutils.for_range(builder, count) as loop:
            offset = builder.mul(loop.index, ir.Constant(count.type, VECTOR))
            there = builder.add(target, offset)
            value = _load(builder, builder.add(source, offset))
            _store(builder, builder.fadd(value, _load(builder, there)), there)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), code


@intrinsic
def draw(typing, counter):
    """Take the next number from a counter shared by threads."""

    def code(context, builder, signature, arguments):
        pointer = _pointer(builder, arguments[0], ir.IntType(64))
        return builder.atomic_rmw("add", pointer, ir.IntType(64)(1), "monotonic")

    return types.int64(types.int64), code


@intrinsic
def correlate_pixels(typing, taps, tap_row, tap_column, source, row, column, rows, columns, result):
    """Sum taps times pixels over rows x columns, for 8 results side by side, in registers."""

    def code(context, builder, signature, arguments):
        taps, tap_row, tap_column, source, row, column, rows, columns, result = arguments
        zero = ir.Constant(_FLOATS, [0.0] * LANES)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(PIXELS)]
        with cgutils.for_range(builder, rows) as i, cgutils.for_range(builder, columns) as j:
            tap = builder.add(taps, builder.mul(i.index, tap_row))
            tap = _load(builder, builder.add(tap, builder.mul(j.index, tap_column)))
            here = builder.add(source, builder.mul(i.index, row))
            here = builder.add(here, builder.mul(j.index, column))
            for index, total in enumerate(sums):
                pixel = _load(builder, here, index * VECTOR)
                builder.store(_multiply_add(builder, tap, pixel, builder.load(total)), total)
        for index, total in enumerate(sums):
            _store(builder, builder.load(total), result, index * VECTOR)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9), code


@intrinsic
def sum_pixels(typing, source, count, target):
    """Add the sum of `count` vectors, a multiple of 8, to one vector."""

    def code(context, builder, signature, arguments):
        source, count, target = arguments
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
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), code


@intrinsic(prefer_literal=True)
def accumulate_taps(typing, source, row, column, slope, slope_row, rows, columns, totals, taps):
    """Add output gradient times pixel to the sums of a row of taps, over rows x columns."""
    count = taps.literal_value

    def code(context, builder, signature, arguments):
        source, row, column, slope, slope_row, rows, columns, totals, _ = arguments
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
                builder.store(_multiply_add(builder, gradient, pixel, builder.load(total)), total)
        for index, total in enumerate(sums):
            _store(builder, builder.load(total), totals, index * VECTOR)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8, taps), code


@intrinsic
def phase_pointer(typing, address):
    """Take an address for a pointer to phases."""
    result = types.CPointer(from_dtype(PHASE))

    def code(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(result))

    return result(types.int64), code


# --- The two kernels --------------------------------------------------------------------------


def _version():
    """Return a digest of all files of kernels."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*_kernels.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


VERSION = _version()


def compile_kernel(record, **options):
    """Compile a kernel to a C function of one pointer to a record; keep it for later processes.

    numba would take a kept one for as long as the file of the kernel itself stays, whatever it
    calls in others; and while another process replaces one, it could take the old. So the version
    is part of its name.
    """
    signature = types.void(types.CPointer(from_dtype(record)))

    def decorate(function):
        function.__qualname__ += f"_{VERSION}"
        try:
            return cfunc(signature, cache=True, **options)(function)
        except RuntimeError:  # no folder to keep it in can be written to
            return cfunc(signature, **options)(function)

    return decorate


@compile_kernel(INPUT_GRADIENT)
def input_gradient(calls):
    """Draw tasks until none is left; a task is `LANES` channels of one image, or of eight.

    With one image, 8 neighbouring columns are computed at once, and the scratch has zeros left
    and right. With eight, the images lie side by side in it and are computed at once.
    """
    call = carray(calls, 1)[0]
    stride = call.stride
    axes = carray(phase_pointer(call.phases), (2, stride))
    slab = call.scratch + draw(call.counter + 8) * call.scratch_bytes
    result = slab + call.slab_bytes
    clear(slab, call.slab_bytes // VECTOR)
    size = 2 if call.half else 4
    pixel = call.channels * size
    half_out = 0 if call.wide else call.half
    size_out = 2 if half_out else 4
    pixel_out = call.channels * size_out
    blocks = (call.channels + LANES - 1) // LANES
    groups = (call.images + call.together - 1) // call.together
    column = call.together * VECTOR
    row = column * call.slab_columns
    tap_column = blocks * VECTOR
    tap_row = tap_column * call.kernel
    while True:
        task = draw(call.counter)
        if task >= call.tasks:
            break
        first_image = task % groups * call.together
        images = min(call.together, call.images - first_image)
        block = task // groups  # two threads never write to one cache line
        lanes = call.channels - block * LANES
        source = call.source + first_image * call.out_rows * call.out_columns * pixel
        source += block * LANES * size
        image_bytes = call.rows * call.columns * pixel_out
        target = call.target + first_image * image_bytes + block * LANES * size_out
        taps = call.taps + block * VECTOR
        for image in range(images):
            for y in range(call.out_rows):
                line = source + (image * call.out_rows + y) * call.out_columns * pixel
                there = slab + y * row + call.left * column + image * VECTOR
                unpack_row(line, pixel, there, column, call.out_columns, lanes, call.half)
        for vertical in range(stride):
            v = axes[0, vertical]
            for m in range(v.outs):
                y = v.first_out + m * stride
                skip = max(0, -v.start - m)  # the rows of taps above the map
                rows = min(v.taps, call.out_rows - v.start - m) - skip
                tap_line = taps + (v.last_tap - skip * stride) * tap_row
                line = slab + (v.start + m + skip) * row
                for horizontal in range(stride):
                    h = axes[1, horizontal]
                    tap = tap_line + h.last_tap * tap_column
                    out = target + (y * call.columns + h.first_out) * pixel_out
                    if call.together == 1:
                        for n in range(0, h.outs, PIXELS):
                            here = line + (h.start + n + call.left) * VECTOR
                            correlate_pixels(tap, -stride * tap_row, -stride * tap_column, here,
                                             row, VECTOR, rows, h.taps, result)  # fmt: skip
                            pack_row(result, out + n * stride * pixel_out, stride * pixel_out,
                                     min(PIXELS, h.outs - n), lanes, half_out)  # fmt: skip
                    else:
                        for n in range(h.outs):
                            left = max(0, -h.start - n)  # the columns of taps left of the map
                            columns = min(h.taps, call.out_columns - h.start - n) - left
                            correlate_pixels(
                                tap - left * stride * tap_column, -stride * tap_row,
                                -stride * tap_column, line + (h.start + n + left) * column,
                                row, column, rows, columns, result)  # fmt: skip
                            pack_row(result, out + n * stride * pixel_out, image_bytes, images,
                                     lanes, half_out)  # fmt: skip


@njit(inline="always")
def _accumulate(source, row, column, slope, slope_row, rows, columns, sums, taps):
    """Call `accumulate_taps`, where the number of registers is fixed at compilation."""
    if taps == 3:
        accumulate_taps(source, row, column, slope, slope_row, rows, columns, sums, 3)
    elif taps == 5:
        accumulate_taps(source, row, column, slope, slope_row, rows, columns, sums, 5)
    elif taps == 7:
        accumulate_taps(source, row, column, slope, slope_row, rows, columns, sums, 7)
    elif taps == 9:
        accumulate_taps(source, row, column, slope, slope_row, rows, columns, sums, 9)
    elif taps == 11:
        accumulate_taps(source, row, column, slope, slope_row, rows, columns, sums, 11)


@compile_kernel(WEIGHT_GRADIENT)
def weight_gradient(calls):
    """Draw tasks until none is left; a task is `LANES` channels of `chunk` images.

    It leaves the gradient of the taps and, after them, of the bias. Images are summed one by one
    and then added up: long sums of float32 lose digits.
    """
    call = carray(calls, 1)[0]
    slab = call.scratch + draw(call.counter + 8) * call.scratch_bytes
    slopes = slab + call.slab_bytes
    sums = slopes + call.slope_bytes
    clear(slab, (call.slab_bytes + call.slope_bytes) // VECTOR)
    size = 2 if call.half else 4
    pixel = call.channels * size
    blocks = (call.channels + LANES - 1) // LANES
    row = call.slab_columns * VECTOR
    slope_row = call.out_columns * VECTOR
    kernel, stride, padding = call.kernel, call.stride, call.padding
    while True:
        task = draw(call.counter)
        if task >= call.tasks:
            break
        block = task % blocks
        lanes = call.channels - block * LANES
        first_image = task // blocks * call.chunk
        total = call.total + task * (kernel * kernel + 1) * VECTOR
        clear(total, kernel * kernel + 1)
        for image in range(first_image, min(call.images, first_image + call.chunk)):
            line = call.source + image * call.rows * call.columns * pixel
            line += block * LANES * size
            for y in range(call.rows):
                there = slab + y * row + padding * VECTOR
                unpack_row(line + y * call.columns * pixel, pixel, there, VECTOR,
                           call.columns, lanes, call.half)  # fmt: skip
            outs = call.out_rows * call.out_columns
            line = call.gradient + image * outs * pixel + block * LANES * size
            unpack_row(line, pixel, slopes, VECTOR, outs, lanes, call.half)
            clear(sums, kernel * kernel)
            for first in range(0, call.out_rows, call.tile):
                last = min(call.out_rows, first + call.tile)
                for i in range(kernel):
                    # Only the outputs whose tap i, at y * stride + i - padding, is inside the map.
                    begin = max(first, (padding - i + stride - 1) // stride)
                    end = min(last, (call.rows - 1 + padding - i) // stride + 1)
                    here = slab + (begin * stride + i - padding) * row
                    _accumulate(here, stride * row, stride * VECTOR, slopes + begin * slope_row,
                                slope_row, end - begin, call.out_columns,
                                sums + i * kernel * VECTOR, kernel)  # fmt: skip
            add_vectors(sums, total, kernel * kernel)
            sum_pixels(slopes, call.slope_bytes // VECTOR, total + kernel * kernel * VECTOR)
