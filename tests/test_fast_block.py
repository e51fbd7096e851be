"""ConvNeXt's block as one function: against float64, and wherever it must step aside."""

import copy

import pytest
import torch
from fast_checks import (  # noqa: F401
    LIMITS,
    error,
    name_of,
    needs_numba,
    threads,
    values_and_gradients,
)
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from convnext_steps.models.convnext import Block
from convnext_steps.models.fast.layers import use_fast_layers

pytestmark = needs_numba


def make_block(channels: int = 24, drop_path: float = 0.0) -> Block:
    """A block whose every parameter matters."""
    block = Block(channels, drop_path, 0.3).train()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return block


def made_fast(block: Block) -> Block:
    (fast,) = use_fast_layers(nn.Sequential(copy.deepcopy(block)))
    return fast


def is_one_function(block: Block, x: Tensor) -> bool:
    return name_of(block(x)) == "_BlockBackward"


def images(channels: int, number: int = 3, side: int = 8) -> Tensor:
    x = torch.randn(number, channels, side, side)
    return x.to(memory_format=torch.channels_last)


# With 32, 96 and 416 channels and rows a multiple of 8, products are the kernels'; else oneDNN's.
@pytest.mark.parametrize(
    "shape", [(24, 6, 9), (48, 2, 8), (32, 2, 4), (96, 8, 14), (96, 1, 7), (416, 4, 6)]
)
@pytest.mark.parametrize("drop_path", [0.0, 0.5])
@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("half_input", [False, True])
def test_values_and_gradients_agree_with_float64(shape, drop_path, kind, half_input):
    channels, number, side = shape
    half = kind == torch.bfloat16
    if half_input and not half:
        pytest.skip("outside of autocast such an input is an error")
    torch.manual_seed(0)
    block = make_block(channels, drop_path)
    fast, reference = made_fast(block), copy.deepcopy(block).double()
    x, slope = images(channels, number, side), images(channels, number, side)
    x = x.to(kind) if half_input else x

    def run(x: Tensor) -> Tensor:
        torch.manual_seed(1)  # all draw the same branches
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return fast(x)

    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        assert is_one_function(fast, x) or not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    fast.zero_grad()
    found = values_and_gradients(run, [x], slope)
    torch.manual_seed(1)
    expected = values_and_gradients(reference, [x.double()], slope.double())
    for value, right in zip(found, expected, strict=True):
        assert error(value, right) < LIMITS[kind]
    for value, right in zip(fast.parameters(), reference.parameters(), strict=True):
        assert value.grad.dtype == torch.float32
        assert value.grad.is_contiguous()
        assert error(value.grad, right.grad) < LIMITS[kind]


def test_inputs_that_are_not_channels_last_agree():
    torch.manual_seed(0)
    block, x, slope = make_block(), torch.randn(3, 24, 8, 8), torch.randn(3, 24, 8, 8)
    expected = values_and_gradients(block, [x], slope)
    for value, right in zip(values_and_gradients(made_fast(block), [x], slope), expected,
                            strict=True):  # fmt: skip
        torch.testing.assert_close(value, right, rtol=1e-4, atol=1e-4)


def test_saved_tensors_may_lie_elsewhere_meanwhile():
    """Hooks give back what they kept as it comes: not aligned, not channels-last."""
    torch.manual_seed(0)
    block, x, slope = make_block(32), images(32), images(32)
    kept = {}

    def keep(tensor: Tensor) -> int:
        values = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)[1:].view(tensor.shape)
        kept[len(kept)] = values.copy_(tensor)
        return len(kept) - 1

    fast = made_fast(block)
    with torch.autocast("cpu", torch.bfloat16):
        expected = values_and_gradients(fast, [x], slope)
        with torch.autograd.graph.saved_tensors_hooks(keep, kept.__getitem__):
            assert is_one_function(fast, x) or not torch.ops.mkldnn._is_mkldnn_bf16_supported()
            found = values_and_gradients(fast, [x], slope)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_weights_may_be_views():
    torch.manual_seed(0)
    fast, x, slope = made_fast(make_block(32)), images(32), images(32)
    with torch.autocast("cpu", torch.bfloat16):
        expected = values_and_gradients(fast, [x], slope)
        for layer in (fast.pwconv1, fast.pwconv2):
            layer.weight = nn.Parameter(layer.weight.detach().t().contiguous().t())
        found = values_and_gradients(fast, [x], slope)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_the_default_type_is_not_the_kernels(default):
    block, x, slope = make_block(), images(24), images(24)
    fast = made_fast(block)
    expected = values_and_gradients(fast, [x], slope)
    torch.set_default_dtype(default)
    try:
        found = values_and_gradients(fast, [x], slope)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_an_activation_may_follow_in_place():
    block, x, slope = make_block(), images(24), images(24)
    plain = nn.Sequential(copy.deepcopy(block), nn.ReLU(inplace=True))
    fast = nn.Sequential(made_fast(block), nn.ReLU(inplace=True))
    expected = values_and_gradients(plain, [x], slope)
    for value, right in zip(values_and_gradients(fast, [x], slope), expected, strict=True):
        torch.testing.assert_close(value, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", ["dwconv", "norm", "pwconv1", "act", "pwconv2"])
def test_hooks_of_layers_are_called(layer):
    fast, x, called = made_fast(make_block()), images(24), []
    part = getattr(fast, layer)
    assert is_one_function(fast, x)
    for register in (part.register_forward_hook, part.register_forward_pre_hook):
        handle = register(lambda *arguments: called.append(arguments[0]))
        fast(x)
        assert called.pop() is part
        handle.remove()
    handle = part.register_full_backward_hook(lambda *arguments: called.append(arguments[0]))
    fast(x.requires_grad_()).sum().backward()
    assert called.pop() is part
    handle.remove()
    assert is_one_function(fast, x)
    handle = register_module_forward_hook(lambda module, *arguments: called.append(module))
    fast(x)
    handle.remove()
    assert part in called


def test_layers_that_are_not_the_blocks_own_are_run():
    fast, x = made_fast(make_block()), images(24)
    fast.act = nn.ReLU()
    assert not is_one_function(fast, x)
    fast = made_fast(make_block())
    fast.pwconv1.forward = lambda x: torch.zeros(*x.shape[:-1], 96)
    assert not is_one_function(fast, x)
    fast = made_fast(make_block())
    fast.norm.eval()
    assert not is_one_function(fast, x)


def test_frozen_parameters_get_no_gradients():
    block, x, slope = make_block(), images(24), images(24)
    block.pwconv1.weight.requires_grad_(False)
    fast = made_fast(block)
    assert not is_one_function(fast, x)
    expected = values_and_gradients(block, [x], slope)
    for value, right in zip(values_and_gradients(fast, [x], slope), expected, strict=True):
        torch.testing.assert_close(value, right, rtol=1e-4, atol=1e-4)
    assert fast.pwconv1.weight.grad is None


def test_other_shapes_and_types_step_aside():
    """The kernels go by addresses: shapes that they do not know are not theirs."""
    fast, x = made_fast(make_block()), images(24)
    fast.gamma = nn.Parameter(torch.full((1,), 0.3))
    assert not is_one_function(fast, x)
    fast.gamma = None
    assert not is_one_function(fast, x)
    fast = made_fast(make_block())
    assert not is_one_function(fast.double(), x.double())
    fast = made_fast(make_block())
    with torch.autocast("cpu", torch.float16):
        assert not is_one_function(fast, x)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not is_one_function(fast, x)
    with pytest.raises(RuntimeError, match="channels"):
        fast(images(23))
