"""The fast layers against float64 and PyTorch's own, and wherever they must step aside."""

import copy

import pytest
import torch
import torch.nn.functional as F
from fast_checks import (  # noqa: F401
    LIMITS,
    error,
    name_of,
    needs_numba,
    threads,
    values_and_gradients,
)
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convnext_steps.models.convnext import Block, ConvNeXt
from convnext_steps.models.design import scaled
from convnext_steps.models.fast import block, gelu
from convnext_steps.models.fast.gelu import FastGELU
from convnext_steps.models.fast.layers import fast_layers, use_fast_layers
from convnext_steps.models.fast.linear import FastLinear
from convnext_steps.models.fast.patches import PatchConv2d
from convnext_steps.models.fast.run import attribute, kernels
from convnext_steps.models.network import Network
from convnext_steps.models.roadmap import roadmap

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")


@needs_numba
@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("shape", [(3, 5, 7, 24), (1, 1), (2, 40000), (4, 12, 6, 6)])
def test_gelu_agrees_with_float64(kind, shape):
    torch.manual_seed(0)
    x, slope = (3 * torch.randn(shape)).to(kind), torch.randn(shape).to(kind)
    if len(shape) == 4:
        x = x.to(memory_format=torch.channels_last)
    expected = values_and_gradients(F.gelu, [x.double()], slope.double())
    assert name_of(FastGELU()(x.requires_grad_())) == "_GeluBackward"
    for value, right in zip(values_and_gradients(FastGELU(), [x], slope), expected, strict=True):
        assert value.dtype == kind
        assert error(value, right) < LIMITS[kind]


@needs_numba
@pytest.mark.parametrize("kind", LIMITS)
def test_gelu_at_the_ends(kind):
    x = torch.tensor([-300.0, -13, -5, -0.0, 0, 5, 13, 300], dtype=kind, requires_grad=True)
    FastGELU()(x).backward(torch.ones(8, dtype=kind))
    expected = torch.tensor([0, 0, -7.146e-6, 0.5, 0.5, 1, 1, 1])
    torch.testing.assert_close(x.grad.float(), expected, rtol=1e-2, atol=2e-7)
    x = torch.tensor([torch.nan, 1.0], dtype=kind, requires_grad=True)
    FastGELU()(x).backward(torch.tensor([1.0, torch.nan], dtype=kind))
    assert x.grad.isnan().all()


@needs_onednn
@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("sizes", [(64, 512, 5), (512, 64, 5), (182, 182, 20), (300, 110, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_pointwise_convolutions_agree_with_float64(kind, sizes, bias):
    inside, outside, side = sizes
    plain, x = nn.Conv2d(inside, outside, 1, bias=bias), torch.randn(3, inside, side, side)
    assert is_linear(plain, x, kind) or not is_supported(kind)
    check_convolution(plain, x, kind)


@needs_onednn
@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("sizes", [(96, 192, 2, 8, 4), (32, 96, 4, 8, 16), (96, 192, 2, 8, 5)])
@pytest.mark.parametrize("last", [True, False])
def test_patches_agree_with_float64(kind, sizes, last):
    inside, outside, size, height, width = sizes
    plain, x = nn.Conv2d(inside, outside, size, size), torch.randn(4, inside, height, width)
    if last:
        plain, x = (each.to(memory_format=torch.channels_last) for each in (plain, x))
    compiled = kernels() is not None and attribute("MULTIPLIES_MATRICES")
    assert is_linear(plain, x, kind) == (compiled and is_supported(kind) and width % size == 0)
    check_convolution(plain, x, kind)


def is_supported(kind: torch.dtype) -> bool:
    return kind == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def is_linear(plain: nn.Conv2d, x: torch.Tensor, kind: torch.dtype) -> bool:
    (layer,) = use_fast_layers(nn.Sequential(copy.deepcopy(plain)))
    assert type(layer) is PatchConv2d
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
        return "Linear" in name_of(layer(x))


def check_convolution(plain: nn.Conv2d, x: torch.Tensor, kind: torch.dtype) -> None:
    torch.manual_seed(0)
    (layer,) = use_fast_layers(nn.Sequential(copy.deepcopy(plain)))
    reference, slope = copy.deepcopy(plain).double(), torch.randn(plain(x).shape)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
        found = values_and_gradients(layer, [x], slope)
    expected = values_and_gradients(reference, [x.double()], slope.double())
    for value, right in zip(found, expected, strict=True):
        assert error(value, right) < LIMITS[kind]
    for value, right in zip(layer.parameters(), reference.parameters(), strict=True):
        assert value.grad.dtype == torch.float32
        assert error(value.grad, right.grad) < LIMITS[kind]


@needs_numba
def test_differentiating_twice_is_one_clear_error():
    x = torch.randn(2, 24, 8, 8)
    for layer in (FastGELU(), FastLinear(8, 8), *use_fast_layers(nn.Sequential(Block(24, 0, 1)))):
        with pytest.raises(RuntimeError, match="no second derivatives"):
            torch.autograd.grad(layer(x.requires_grad_()).sum(), x, create_graph=True)


def test_a_model_gets_its_own_layers_back():
    kinds = [nn.Conv2d, nn.Linear, nn.GELU]
    model = nn.Sequential(nn.Conv2d(8, 8, 7, groups=8), nn.Linear(8, 8), nn.GELU())
    with fast_layers(model):
        assert not {type(layer) for layer in model} & {*kinds}
        with pytest.raises(KeyError), fast_layers(model):
            raise KeyError
        assert not {type(layer) for layer in model} & {*kinds}
    assert [type(layer) for layer in model] == kinds
    torch.jit.script(model)


def test_the_state_dict_stays():
    model = ConvNeXt((1, 1), (96, 192), num_classes=5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after = use_fast_layers(model).state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", ["convnext", "separate_downsampling", "layer_norm"])
def test_training_losses_agree(model, precision):
    torch.manual_seed(0)
    if model == "convnext":
        plain: nn.Module = ConvNeXt((1, 2), (48, 96), num_classes=5, drop_path_rate=0.2)
    else:
        design = scaled(roadmap("tiny")[model].design, width=1 / 8, stem_stride=2)
        plain = Network(design, num_classes=5)
    plain.to(memory_format=torch.channels_last)
    fast = use_fast_layers(copy.deepcopy(plain))
    losses = [train(each, precision) for each in (plain, fast)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-4 if precision == "fp32" else 3e-2)


def train(model: nn.Module, precision: str) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, 32, 32, generator=generator)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.arange(8) % 5
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-3, fused=True)
    torch.manual_seed(2)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def small() -> ConvNeXt:
    return ConvNeXt((1, 1), (48, 96), num_classes=5)


def test_evaluation_and_counting_are_pytorchs():
    plain, x = small(), torch.randn(2, 3, 32, 32)
    fast = use_fast_layers(copy.deepcopy(plain))
    assert torch.equal(plain.eval()(x), fast.eval()(x))
    counts = []
    for model in (plain.train(), fast.train()):
        with FlopCounterMode(display=False) as counter:
            model(x).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_compilation_and_tracing_are_pytorchs():
    fast, x = use_fast_layers(small()), torch.randn(2, 3, 32, 32)
    compiled = torch.compile(fast, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), fast(x), rtol=1e-4, atol=1e-5)
    graph = str(torch.jit.trace(fast, x, check_trace=False).inlined_graph)
    assert "aten::gelu" in graph
    assert "PythonOp" not in graph


def test_without_numba_they_are_pytorchs(monkeypatch):
    for module in (block, gelu):
        monkeypatch.setattr(module, "kernels", lambda: None)
    x = torch.randn(2, 24, 4, 4, requires_grad=True)
    assert name_of(FastGELU()(x)) == "GeluBackward0"
    (fast,) = use_fast_layers(nn.Sequential(Block(24, 0, 1)))
    assert name_of(fast(x)) == "AddBackward0"


@needs_onednn
def test_an_activation_may_follow_in_place():
    """ReLU after a 1x1 convolution with bias: in the roadmap a norm is between them."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(192, 192, 1), nn.ReLU(inplace=True))
    fast = use_fast_layers(copy.deepcopy(plain))
    assert type(fast[0]) is PatchConv2d
    x = torch.randn(2, 192, 5, 4).to(memory_format=torch.channels_last)
    slope = torch.randn(2, 192, 5, 4)
    expected = values_and_gradients(plain, [x], slope)
    for value, right in zip(values_and_gradients(fast, [x], slope), expected, strict=True):
        torch.testing.assert_close(value, right)
    torch.testing.assert_close(fast[0].weight.grad, plain[0].weight.grad)


def test_tanh_gelu_and_convolutions_of_other_kinds_stay():
    strided, small = nn.Conv2d(256, 256, 1, stride=2), nn.Conv2d(96, 96, 1)
    others = nn.Conv2d(256, 256, 2, 2, dilation=2), nn.Conv2d(256, 256, (2, 4), (2, 4))
    model = nn.Sequential(nn.GELU("tanh"), strided, small, *others)
    kinds = [type(layer) for layer in model]
    assert [type(layer) for layer in use_fast_layers(model)] == kinds


@needs_onednn
@pytest.mark.parametrize("shape", [(5, 24), (2, 7, 7, 24), (1, 24)])
@pytest.mark.parametrize("out", [10, 96])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_agree_with_float64(shape, out, bias):
    torch.manual_seed(0)
    layer, plain = FastLinear(24, out, bias), nn.Linear(24, out, bias, dtype=torch.float64)
    plain.load_state_dict(layer.state_dict())
    x, slope = torch.randn(shape), torch.randn(*shape[:-1], out)
    assert "_Linear" in name_of(layer(x))
    expected = values_and_gradients(plain, [x.double()], slope.double())
    for value, right in zip(values_and_gradients(layer, [x], slope), expected, strict=True):
        assert error(value, right) < 1e-5
    for value, right in zip(layer.parameters(), plain.parameters(), strict=True):
        assert error(value.grad, right.grad) < 1e-5


def test_linear_layers_step_aside():
    layer, x = FastLinear(24, 96), torch.randn(5, 24)
    with torch.backends.mkldnn.flags(enabled=False):
        assert "_Linear" not in name_of(layer(x))
    assert "_Linear" not in name_of(layer(x.to_sparse()))
    with torch.autocast("cpu", torch.float16):
        assert "_Linear" not in name_of(layer(x))
    assert "_Linear" not in name_of(layer.double()(x.double()))
    assert "_Linear" not in name_of(layer.float().eval()(x))
    compiled = torch.compile(layer.train(), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))
