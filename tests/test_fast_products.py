"""The compiled products of bfloat16 matrices against float64."""

import pytest
import torch
from fast_checks import error, needs_numba, threads  # noqa: F401

from convnext_steps.models.fast import products
from convnext_steps.models.fast.run import attribute, kernels

pytestmark = [
    needs_numba,
    pytest.mark.skipif(
        kernels() is None or not attribute("MULTIPLIES_BFLOAT16"),
        reason="this processor has no bfloat16 instructions, or better ones",
    ),
]
SIZES = [(8, 32, 32), (136, 64, 96), (400, 32, 416), (2072, 96, 64), (128, 1536, 384)]
ROUNDED, SUMMED = 3e-3, 1e-5  # the result is bfloat16, or float32


def matrices(rows: int, inner: int, columns: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    left = torch.randn(rows, inner).bfloat16()
    right = torch.randn(inner, columns).bfloat16().float()  # nothing is lost where it is rounded
    return left, right, torch.randn(columns)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_rows(sizes, turned):
    left, right, bias = matrices(*sizes)
    expected = left.double() @ right.double()
    factor = right.t().contiguous() if turned else right
    found = products.multiply_rows(left, factor, turned=turned)
    assert error(found, expected) < ROUNDED
    found = products.multiply_rows(left, factor, bias, turned)
    assert error(found, expected + bias) < ROUNDED


@pytest.mark.parametrize("sizes", SIZES)
def test_rows_activated(sizes):
    left, right, bias = matrices(*sizes)
    slope = left.new_empty(len(left), right.shape[1])
    found = products.multiply_rows(left, right.t().contiguous(), bias, turned=True, slope=slope)
    x = (left.double() @ right.double() + bias).requires_grad_()
    expected = torch.nn.functional.gelu(x)
    expected.sum().backward()
    assert error(found, expected.detach()) < ROUNDED
    assert error(slope, x.grad) < ROUNDED


def test_gelu_of_all_sizes():
    x = torch.cat([torch.linspace(-6, 6, 1000), torch.tensor([-300, -40, -13, 0, 13, 40, 300, 0])])
    left, right = x.bfloat16().repeat(32, 1).t().contiguous(), torch.eye(32)
    slope = left.new_empty(left.shape)
    found = products.multiply_rows(left, right, slope=slope)
    x = left.double().requires_grad_()
    expected = torch.nn.functional.gelu(x)
    expected.sum().backward()
    torch.testing.assert_close(found.double(), expected, rtol=4e-3, atol=1e-6)
    torch.testing.assert_close(slope.double(), x.grad, rtol=4e-3, atol=1e-5)


@pytest.mark.parametrize("sizes", SIZES)
def test_rows_scaled(sizes):
    left, right, _ = matrices(*sizes)
    slope = torch.rand(len(left), right.shape[1]).bfloat16()
    total = torch.empty(products.row_chunks(len(left), None), right.shape[1])
    found = products.multiply_rows(left, right, slope=slope, total=total)
    expected = (left.double() @ right.double()) * slope
    assert error(found, expected) < ROUNDED
    assert error(total.sum(0), expected.sum(0)) < SUMMED


@pytest.mark.parametrize("sizes", [*SIZES, (9000, 64, 32)])
def test_columns(sizes):
    rows, inner, columns = sizes
    left, right = torch.randn(rows, inner).bfloat16(), torch.randn(rows, columns).bfloat16()
    assert (
        error(products.multiply_columns(left, right), left.double().t() @ right.double()) < SUMMED
    )


def test_infinities_and_nans_stay():
    left, right, _ = matrices(8, 32, 32)
    left[2, 5], left[4, 0] = torch.inf, torch.nan
    found = products.multiply_rows(left, right)
    assert found[2].isinf().all()
    assert found[4].isnan().all()
    assert found[[0, 1, 3, 5, 6, 7]].isfinite().all()


def test_results_do_not_depend_on_the_number_of_threads():
    left, right, _ = matrices(2072, 96, 64)
    results = []
    for number in (1, 2):
        torch.set_num_threads(number)
        results.append((products.multiply_rows(left, right), products.multiply_columns(left, left)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_other_sizes_are_not_served():
    assert products.are_served(8, 32, 96)
    assert not products.are_served(9, 32, 96)
    assert not products.are_served(8, 24, 96)
