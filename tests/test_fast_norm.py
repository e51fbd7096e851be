"""The fast LayerNorms against float64 and PyTorch's own, and where they step aside."""

import copy

import pytest
import torch
from fast_checks import LIMITS, error, needs_numba, threads  # noqa: F401
from torch import Tensor, nn

from convnext_steps.models.fast import norm
from convnext_steps.models.fast.layers import use_fast_layers
from convnext_steps.models.fast.norm import FastLayerNorm, FastLayerNorm2d
from convnext_steps.models.layers import LayerNorm2d

KINDS = {nn.LayerNorm: FastLayerNorm, LayerNorm2d: FastLayerNorm2d}


def make(kind: type[nn.LayerNorm], channels: int) -> nn.LayerNorm:
    """A LayerNorm whose weight and bias are not those of the beginning."""
    layer = kind(channels, eps=1e-6)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return layer


def value_and_gradients(layer: nn.Module, x: Tensor, slope: Tensor) -> list[Tensor]:
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    result = layer(x)
    result.backward(slope.to(result.dtype))
    return [result.detach(), x.grad, layer.weight.grad, layer.bias.grad]


@needs_numba
@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.LayerNorm, (5, 24)),
        (nn.LayerNorm, (8, 28, 28, 96)),
        (nn.LayerNorm, (3, 7, 5, 17)),
        (nn.LayerNorm, (2, 1)),
        (LayerNorm2d, (8, 96, 28, 28)),
        (LayerNorm2d, (2, 40, 3, 5)),
    ],
)
def test_layer_norm_agrees_with_float64(layer, shape, kind) -> None:
    torch.manual_seed(0)
    plain = make(layer, shape[1] if layer is LayerNorm2d else shape[-1])
    (fast,) = use_fast_layers(nn.Sequential(copy.deepcopy(plain)))
    assert type(fast) is KINDS[layer]
    x, slope = (2 * torch.randn(shape) + 1).to(kind), torch.randn(shape).to(kind)
    if layer is LayerNorm2d:
        x = x.to(memory_format=torch.channels_last)
    expected = value_and_gradients(copy.deepcopy(plain).double(), x.double(), slope.double())
    values = value_and_gradients(fast, x, slope)
    assert values[0].dtype == plain(x).dtype
    for value, right in zip(values, expected, strict=True):
        if right.norm() > 0:  # the gradient of a single channel is not
            assert error(value, right) < LIMITS[kind]
        assert value.isfinite().all()
    assert [value.stride() for value in values[:2]] == [plain(x).stride(), x.stride()]


@needs_numba
def test_in_bfloat16_the_gradients_of_the_weights_are_sums_of_float32() -> None:
    """PyTorch (2.15) sums them in bfloat16: with 25,000 positions they are a tenth off."""
    torch.manual_seed(0)
    plain, x = make(nn.LayerNorm, 96), torch.randn(25088, 96).bfloat16()
    (fast,) = use_fast_layers(nn.Sequential(copy.deepcopy(plain)))
    slope = torch.randn(25088, 96).bfloat16()
    expected = value_and_gradients(copy.deepcopy(plain).double(), x.double(), slope.double())
    ours, theirs = (value_and_gradients(layer, x, slope) for layer in (fast, plain))
    for place in (2, 3):
        assert error(ours[place], expected[place]) < 1e-3
        assert error(ours[place], expected[place]) < error(theirs[place], expected[place])


@needs_numba
def test_any_layout_and_gradient_are_taken() -> None:
    torch.manual_seed(0)
    plain = make(LayerNorm2d, 24)
    fast = copy.deepcopy(plain)
    fast.__class__ = FastLayerNorm2d
    x, slope = torch.randn(2, 24, 5, 7), torch.randn(2, 24, 5, 7).transpose(2, 3).contiguous()
    expected = value_and_gradients(plain, x, slope.transpose(2, 3))
    for value, right in zip(
        value_and_gradients(fast, x, slope.transpose(2, 3)), expected, strict=True
    ):
        torch.testing.assert_close(value, right)


def is_fast(layer: nn.Module, x: Tensor) -> bool:
    names, function = [], layer(x).grad_fn
    while function is not None:
        names.append(type(function).__name__)
        function = function.next_functions[0][0] if function.next_functions else None
    return "_LayerNormBackward" in names


@needs_numba
def test_layer_norm_steps_aside(monkeypatch) -> None:
    x = torch.randn(2, 4, 4, 8, requires_grad=True)

    def fast(plain: nn.LayerNorm) -> nn.Module:
        return use_fast_layers(nn.Sequential(plain))[0]

    assert is_fast(fast(make(nn.LayerNorm, 8)), x)
    assert not is_fast(fast(make(nn.LayerNorm, 8)).eval(), x)
    assert not is_fast(fast(make(nn.LayerNorm, 8).double()), x.double())
    assert not is_fast(fast(nn.LayerNorm(8, elementwise_affine=False)), x)
    assert not is_fast(fast(nn.LayerNorm(8, bias=False)), x)
    assert not is_fast(fast(nn.LayerNorm((4, 8))), x)
    assert not is_fast(fast(make(LayerNorm2d, 4)).eval(), x)
    with pytest.raises(RuntimeError, match="normalized_shape"):
        fast(make(nn.LayerNorm, 4))(x)
    with torch.no_grad():
        assert fast(make(nn.LayerNorm, 8))(x).grad_fn is None
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(fast(make(nn.LayerNorm, 8))(x).sum(), x, create_graph=True)
    monkeypatch.setattr(norm, "kernels", lambda: None)
    assert not is_fast(fast(make(nn.LayerNorm, 8)), x)
