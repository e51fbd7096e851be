"""The compiled products of matrices against float64."""

import pytest
import torch
from fast_checks import error, needs_numba, threads  # noqa: F401

from convnext_steps.models.fast import products
from convnext_steps.models.fast.run import attribute, kernels

pytestmark = [
    needs_numba,
    pytest.mark.skipif(
        kernels() is None or not attribute("MULTIPLIES_MATRICES"),
        reason="this processor lacks their instructions, or has better ones",
    ),
]
SIZES = [(8, 32, 32), (136, 64, 96), (400, 32, 416), (2072, 96, 64), (128, 1536, 384)]
LIMITS = {torch.float32: 1e-6, torch.bfloat16: 3e-3}  # of results in these types
SUMMED = 1e-5  # of bfloat16's products, added up in float32
both_types = pytest.mark.parametrize("kind", LIMITS)


def matrices(rows: int, inner: int, columns: int, kind: torch.dtype) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    left = torch.randn(rows, inner).to(kind)
    right = torch.randn(inner, columns) / inner**0.5
    right = right.to(kind).float()  # nothing is lost where it is rounded
    return left, right, torch.randn(columns)


@both_types
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_rows(sizes, turned, kind):
    left, right, bias = matrices(*sizes, kind)
    expected = left.double() @ right.double()
    factor = right.t().contiguous() if turned else right
    found = products.multiply_rows(left, factor, turned=turned)
    assert found.dtype == kind
    assert error(found, expected) < LIMITS[kind]
    found = products.multiply_rows(left, factor, bias, turned)
    assert error(found, expected + bias) < LIMITS[kind]


@both_types
@pytest.mark.parametrize("sizes", SIZES)
def test_rows_activated(sizes, kind):
    left, right, bias = matrices(*sizes, kind)
    slope = left.new_empty(len(left), right.shape[1])
    found = products.multiply_rows(left, right.t().contiguous(), bias, turned=True, slope=slope)
    x = (left.double() @ right.double() + bias).requires_grad_()
    expected = torch.nn.functional.gelu(x)
    expected.sum().backward()
    assert error(found, expected.detach()) < LIMITS[kind]
    assert error(slope, x.grad) < LIMITS[kind]


@pytest.mark.parametrize(
    ("kind", "relative", "absolute"), [(torch.float32, 3e-7, 3e-6), (torch.bfloat16, 4e-3, 1e-6)]
)
def test_gelu_of_all_sizes(kind, relative, absolute):
    x = torch.cat([torch.linspace(-6, 6, 1000), torch.tensor([-300, -40, -13, 0, 13, 40, 300, 0])])
    left, right = x.to(kind).repeat(32, 1).t().contiguous(), torch.eye(32)
    slope = left.new_empty(left.shape)
    found = products.multiply_rows(left, right, slope=slope)
    x = left.double().requires_grad_()
    expected = torch.nn.functional.gelu(x)
    expected.sum().backward()
    torch.testing.assert_close(found.double(), expected, rtol=relative, atol=absolute)
    torch.testing.assert_close(slope.double(), x.grad, rtol=relative, atol=10 * absolute)


@both_types
@pytest.mark.parametrize("sizes", SIZES)
def test_rows_scaled(sizes, kind):
    left, right, _ = matrices(*sizes, kind)
    slope = torch.rand(len(left), right.shape[1]).to(kind)
    total = torch.empty(products.row_chunks(len(left), None), right.shape[1])
    found = products.multiply_rows(left, right, slope=slope, total=total)
    expected = (left.double() @ right.double()) * slope
    assert error(found, expected) < LIMITS[kind]
    assert error(total.sum(0), expected.sum(0)) < SUMMED


@both_types
@pytest.mark.parametrize("sizes", [*SIZES, (9000, 64, 32)])
def test_columns(sizes, kind):
    rows, inner, columns = sizes
    left, right = torch.randn(rows, inner).to(kind), torch.randn(rows, columns).to(kind)
    found = products.multiply_columns(left, right)
    assert error(found, left.double().t() @ right.double()) < min(LIMITS[kind], SUMMED)


@both_types
def test_infinities_and_nans_stay(kind):
    left, right, _ = matrices(8, 32, 32, kind)
    left[2, 5], left[4, 0] = torch.inf, torch.nan
    found = products.multiply_rows(left, right)
    assert found[2].isinf().all()
    assert found[4].isnan().all()
    assert found[[0, 1, 3, 5, 6, 7]].isfinite().all()


@both_types
def test_results_do_not_depend_on_the_number_of_threads(kind):
    left, right, _ = matrices(2072, 96, 64, kind)
    results = []
    for number in (1, 2):
        torch.set_num_threads(number)
        results.append((products.multiply_rows(left, right), products.multiply_columns(left, left)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_other_sizes_are_not_served():
    assert products.are_served(8, 32, 96)
    assert not products.are_served(9, 32, 96)
    assert not products.are_served(8, 24, 96)
