"""What the tests of the fast layers share."""

from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="numba is not installed")
LIMITS = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


@pytest.fixture(autouse=True, params=[1, 2])
def threads(request):
    """One thread, then two, for every test of a file that imports this."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def error(value: Tensor, expected: Tensor) -> float:
    """The norm of the difference over the norm."""
    return float((value.double() - expected).norm() / expected.norm())


def values_and_gradients(function, inputs, slope: Tensor) -> list[Tensor]:
    """A function's value for some inputs, and their gradients."""
    inputs = [x.detach().clone(memory_format=torch.preserve_format) for x in inputs]
    result = function(*(x.requires_grad_() for x in inputs))
    result.backward(slope.to(result.dtype))
    return [result.detach(), *(x.grad for x in inputs)]


def name_of(result: Tensor) -> str:
    """What computed a tensor, whatever view of it this is."""
    function = result.grad_fn
    while type(function).__name__ in ("PermuteBackward0", "ViewBackward0"):
        function = function.next_functions[0][0]
    return type(function).__name__
