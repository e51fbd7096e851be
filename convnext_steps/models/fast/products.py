"""Products of float32 or bfloat16 matrices by compiled kernels, on processors that gain from them.

These are AMD's since Zen 4 and other ones with AVX-512's bfloat16 instructions, but not Intel's
with tiles of their own (AMX), which oneDNN uses.
"""

import torch
from torch import Tensor

from convnext_steps.models.fast.run import LINE, SINGLE, Chain, attribute, kernels, run_with

PANEL = 32  # columns that a kernel computes at once
CHUNK = 128  # rows in a task, when rows are multiplied
GROUP = 12  # panels in a task, likewise
BLOCK = 512  # bytes of a column that are held in the cache, when columns are multiplied
WIDEST = 384  # columns in a task, likewise
PARTS = 8  # at least so many tasks, if each has SHORTEST rows
SHORTEST = 1024


def are_served(rows: int, *columns: int) -> bool:
    """Return whether the kernels multiply matrices of these sizes."""
    return (
        rows % 8 == 0
        and all(count % PANEL == 0 for count in columns)
        and kernels() is not None
        and attribute("MULTIPLIES_MATRICES")
    )


def multiply_rows(
    left: Tensor,
    right: Tensor,
    bias: Tensor | None = None,
    turned: bool = False,
    chain: Chain | None = None,
    **more: Tensor,
) -> Tensor:
    """Return left (R, K) times right (K, C), or its transpose (C, K) if `turned`, plus a bias (C).

    More is a slope (R, C): then the result is GELU of that, and its derivative is written there; or
    a slope and a total (chunks, C): then it is scaled by the slope, and each chunk's rows are
    added up.
    """
    rows, inner = left.shape
    columns = right.shape[0 if turned else 1]
    chunk, group = (chain.chunk, columns // PANEL) if chain else (CHUNK, GROUP)
    target = left.new_empty(rows, columns)
    run_with(
        "rows_product",
        "ROWS_PRODUCT",
        chain,
        left=left,
        right=_pack(right.float().contiguous(), turned, left.dtype),
        bias=torch.zeros(columns, **SINGLE) if bias is None else bias.float(),
        target=target,
        **more,
        half=left.dtype == torch.bfloat16,
        rows=rows,
        inner=inner,
        columns=columns,
        chunk=chunk,
        group=group,
        tasks=-(-rows // chunk) * -(-columns // (PANEL * group)),
    )
    return target


def row_chunks(rows: int, chain: Chain | None) -> int:
    """Return in how many chunks `multiply_rows` takes so many rows."""
    return -(-rows // (chain.chunk if chain else CHUNK))


def multiply_columns(left: Tensor, right: Tensor, filled: bool = False) -> Tensor:
    """Return the transpose of left (R, A) times right (R, B), (A, B) in float32.

    If `filled`, a chain of kernels has written both as panels.
    """
    (rows, left_columns), right_columns = left.shape, right.shape[1]
    left_group, right_group = _group(left_columns), _group(right_columns)
    tasks = left_columns // left_group * (right_columns // right_group)
    chunk = 2 * -(-rows // (2 * max(1, min(PARTS // tasks, rows // SHORTEST))))
    chunks, block = -(-rows // chunk), BLOCK // left.itemsize
    total = torch.empty(chunks, left_columns, right_columns, **SINGLE)
    run_with(
        "columns_product",
        "COLUMNS_PRODUCT",
        left=left,
        right=right,
        total=total,
        half=left.dtype == torch.bfloat16,
        rows=rows,
        left_columns=left_columns,
        right_columns=right_columns,
        left_group=left_group,
        right_group=right_group,
        chunk=chunk,
        block=block,
        filled=filled,
        tasks=tasks * chunks,
        scratch_bytes=0 if filled else BLOCK * (left_group + right_group),
    )
    return total[0] if chunks == 1 else total.sum(0)


def _pack(right: Tensor, turned: bool, kind: torch.dtype) -> Tensor:
    """Return a float32 right factor, or its transpose, as the kernels of a type read it."""
    rows, columns = right.shape
    buffer = torch.empty(right.numel() + LINE // kind.itemsize, dtype=kind, device="cpu")
    packed = buffer[-buffer.data_ptr() % LINE // kind.itemsize :]
    run_with(
        "pack",
        "PACK",
        source=right,
        rows=rows,
        columns=columns,
        target=packed,
        turned=turned,
        half=kind == torch.bfloat16,
        tasks=(rows if turned else columns) // PANEL,
    )
    return packed


def _group(columns: int) -> int:
    """Return the largest part of the columns, in whole panels, that a task may have."""
    panels = columns // PANEL
    return PANEL * max(n for n in range(1, WIDEST // PANEL + 1) if panels % n == 0)
