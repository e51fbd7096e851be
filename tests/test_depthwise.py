"""Depthwise convolutions that train fast: against PyTorch in float64, and where they step aside."""

import copy
import logging
import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from studies import small
from torch import Tensor, nn

from convnext_steps import How, Trainer, TrainingConfig
from convnext_steps.cpu import run
from convnext_steps.cpu.depthwise import DepthwiseConv2d, fast_depthwise
from convnext_steps.training.data import synthetic


def error(value: Tensor, right: Tensor) -> float:
    """The largest difference, as a share of the largest right value."""
    return float((value.double() - right.double()).abs().max() / right.abs().max())


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(channels=24, kernel=7, stride=1, padding=3, bias=True) -> DepthwiseConv2d:
    return DepthwiseConv2d(channels, channels, kernel, stride, padding, groups=channels, bias=bias)


def is_fast(result: Tensor) -> bool:
    return "_Depthwise" in type(result.grad_fn).__name__


def gradients(layer: nn.Conv2d, x: Tensor, slope: Tensor) -> list[Tensor]:
    """Return the result and the gradients of input, weight and bias."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    layer.zero_grad()
    result = layer(x)
    result.backward(slope.to(result.dtype))
    found = [result.detach(), x.grad, layer.weight.grad]
    return found if layer.bias is None else [*found, layer.bias.grad]


def random_case(seed: int) -> tuple[DepthwiseConv2d, Tensor, Tensor]:
    """Return a layer, an input and a gradient of its result, of any shape and layout."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    kernel, stride = draw.choice([3, 5, 7, 9, 11]), draw.choice([1, 1, 1, 2, 2, 3])
    padding = draw.choice([kernel // 2, kernel // 2, kernel // 2, 0, kernel - 1])
    smallest = max(1, kernel - 2 * padding)
    size = (draw.randint(smallest, 24), draw.randint(smallest, 24))
    channels = draw.choice([1, 3, 12, 16, 24, 31, 48])
    layer = make(channels, kernel, stride, padding, bias=draw.random() < 0.7)
    x = torch.randn(draw.choice([1, 2, 7, 8, 9, 17]), channels, *size)
    if draw.random() < 0.7:
        x = x.to(memory_format=torch.channels_last)
    return layer, x, torch.randn_like(F.conv2d(x, layer.weight, None, stride, padding, 1, channels))


def compare(layer: DepthwiseConv2d, x: Tensor, slope: Tensor, limit: float) -> None:
    reference = nn.Conv2d(layer.in_channels, layer.in_channels, layer.kernel_size, layer.stride,
                          layer.padding, groups=layer.in_channels, bias=layer.bias is not None,
                          dtype=torch.float64)  # fmt: skip
    reference.load_state_dict(layer.state_dict())
    expected = gradients(reference, x.double(), slope.double())
    names = ("result", "input", "weight", "bias")
    for name, value, right in zip(names, gradients(layer, x, slope), expected, strict=False):
        if right.numel() < 16:  # so few sums may cancel: compare them with their terms
            right = right + slope.abs().sum()
            value = value + slope.abs().sum()
        assert error(value, right) < limit, name


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_the_default_type_is_not_the_kernels(default):
    layer, x, slope = make(), torch.randn(4, 24, 9, 9), torch.randn(4, 24, 9, 9)
    torch.set_default_dtype(default)
    try:
        compare(layer, x, slope, 1e-5)
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_saved_input_may_come_back_in_another_layout():
    layer, x, slope = make(), torch.randn(4, 24, 9, 9), torch.randn(4, 24, 9, 9)
    expected = gradients(layer, x, slope)
    with torch.autograd.graph.saved_tensors_hooks(torch.Tensor.tolist, torch.tensor):
        found = gradients(layer, x, slope)
    for value, right in zip(found, expected, strict=True):
        assert torch.equal(value, right)


@pytest.mark.parametrize("seed", range(40))
def test_float32_agrees_with_float64(seed):
    layer, x, slope = random_case(seed)
    torch.set_num_threads(1 + seed % 2)
    own = layer.kernel_size[0] == 3 <= min(x.shape[2:])  # there PyTorch's own is as fast
    assert is_fast(layer(x)) != own
    compare(layer, x, slope, 1e-5)


@pytest.mark.parametrize("size", [(2, 2), (1, 4), (5, 1)])
def test_maps_smaller_than_the_kernel_agree_with_float64(size):
    layer, x = make(24, 3, padding=1), torch.randn(9, 24, *size)
    assert is_fast(layer(x))
    compare(layer, x, torch.randn(9, 24, *size), 1e-5)


@pytest.mark.parametrize("seed", range(60, 80))
def test_autocast_agrees_with_float64(seed):
    layer, x, slope = random_case(seed)
    slope = slope.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        result = layer(x)
        assert is_fast(result)
        assert result.dtype == torch.bfloat16
        compare(layer, x, slope, 1e-2)
    assert layer.weight.grad.dtype == torch.float32


def test_autocast_around_the_backward_pass_alone_changes_nothing():
    layer, x = make(), torch.randn(4, 24, 9, 9, requires_grad=True)
    slope = torch.randn(4, 24, 9, 9)
    (alone,) = torch.autograd.grad(layer(x), x, slope)
    result = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        (inside,) = torch.autograd.grad(result, x, slope)
    assert torch.equal(alone, inside)


def test_a_bfloat16_model_agrees_with_float64():
    layer, x = make().bfloat16(), torch.randn(4, 24, 9, 9).bfloat16()
    assert is_fast(layer(x))
    compare(layer, x, torch.randn(4, 24, 9, 9).bfloat16(), 1e-2)
    assert layer.weight.grad.dtype == torch.bfloat16


@pytest.mark.slow
def test_with_shorter_vectors_gradients_agree_too():
    """Without AVX-512 a vector has 8 channels; a CPU that has it can do without."""
    binding = pytest.importorskip("llvmlite.binding")
    features = binding.get_host_cpu_features()
    if not features.get("avx512f"):
        pytest.skip("vectors are short in the other tests already")
    features |= {name: False for name in features if "avx512" in name}
    variables = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": features.flatten()}
    command = [sys.executable, "-m", "pytest", "-q", "-k", "agrees", __file__]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("half", [False, True])
def test_threads_and_repetition_do_not_change_a_bit(half):
    layer = make(40)
    x, slope = torch.randn(9, 40, 13, 13), torch.randn(9, 40, 13, 13)
    kind = torch.bfloat16 if half else torch.float32
    layer, x, slope = layer.to(kind), x.to(kind), slope.to(kind)
    torch.set_num_threads(1)
    alone = gradients(layer, x, slope)[1:]
    for threads in (2, 2, 3):
        torch.set_num_threads(threads)
        for first, second in zip(alone, gradients(layer, x, slope)[1:], strict=True):
            assert torch.equal(first, second)


def test_several_python_threads_may_train_at_once():
    cases = [random_case(seed) for seed in range(20)]
    cases = [case for case in cases if is_fast(case[0](case[1]))][:4]
    expected = [gradients(*case) for case in cases]
    barrier = threading.Barrier(4)

    def train(case):
        torch.set_num_threads(2)
        barrier.wait()
        return [gradients(*case) for _ in range(5)][-1]

    with ThreadPoolExecutor(4) as pool:
        for found, right in zip(pool.map(train, cases), expected, strict=True):
            for value, expectation in zip(found, right, strict=True):
                torch.testing.assert_close(value, expectation)


def test_only_the_gradients_that_are_wanted():
    layer, x = make(), torch.randn(2, 24, 8, 8)
    layer(x).sum().backward()  # the gradient of a sum is one expanded number
    assert x.grad is None
    assert layer.weight.grad.shape == (24, 1, 7, 7)
    layer.requires_grad_(False)
    x.requires_grad_()
    layer(x).sum().backward()
    assert x.grad.shape == x.shape


def test_differentiating_twice_is_one_clear_error():
    """A sum's gradient is a constant: of it, PyTorch's own guard takes notice of nothing."""
    layer, x = make(), torch.randn(1, 24, 4, 4, requires_grad=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(layer(x).sum(), x, create_graph=True)


def test_evaluation_is_pytorchs():
    layer, x = make(), torch.randn(2, 24, 8, 8)
    assert not is_fast(layer.eval()(x))


@pytest.mark.parametrize("x", [torch.randn(24, 8, 8), torch.randn(0, 24, 8, 8)])
def test_odd_inputs_are_pytorchs(x):
    result = make()(x)
    assert result.shape == x.shape
    assert not is_fast(result)


def test_tracing_sees_a_convolution():
    traced = torch.jit.trace(make(), torch.randn(2, 24, 8, 8))
    assert "aten::_convolution" in str(traced.inlined_graph)


def test_export_sees_a_convolution():
    program = torch.export.export(make(), (torch.randn(2, 24, 8, 8),))
    assert "conv2d" in str(program.graph)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compilation_is_pytorchs(backend):
    layer, x, slope = make(), torch.randn(2, 24, 8, 8), torch.randn(2, 24, 8, 8)
    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    x.requires_grad_()
    result = compiled(x)
    result.backward(slope)
    compare(layer, x.detach(), slope, 1e-5)
    assert not is_fast(result)


def test_checkpointing_recomputes_the_same_bits():
    layer, x = make(), torch.randn(2, 24, 8, 8, requires_grad=True)
    torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False).sum().backward()
    slope = x.grad.clone()
    x.grad = None
    layer(x).sum().backward()
    assert torch.equal(x.grad, slope)


def test_a_models_layers_are_its_own_again():
    model = nn.Sequential(nn.Conv2d(24, 24, 7, groups=24), nn.Conv2d(24, 8, 3, groups=8))
    plain = copy.deepcopy(model)
    with fast_depthwise(model) as count:
        assert count == 1
        assert [type(layer) for layer in model] == [DepthwiseConv2d, nn.Conv2d]
        assert list(model.state_dict()) == list(plain.state_dict())
        assert str(model[0]).replace("Depthwise", "") == str(plain[0])
    assert [type(layer) for layer in model] == [nn.Conv2d, nn.Conv2d]
    with pytest.raises(KeyError), fast_depthwise(model):
        raise KeyError
    assert type(model[0]) is nn.Conv2d


@pytest.mark.parametrize("change", [
    {"dilation": 2}, {"padding": "same"}, {"padding_mode": "circular"}, {"kernel_size": (3, 5)},
    {"stride": (1, 2)}, {"kernel_size": 4}, {"groups": 4}, {"device": "meta"},
])  # fmt: skip
def test_other_convolutions_stay_pytorchs(change):
    model = nn.Sequential(nn.Conv2d(8, 8, **{"kernel_size": 3, "groups": 8} | change))
    with fast_depthwise(model) as count:
        assert count == 0


def losses(how: How) -> list[float]:
    data = synthetic(True, 64), synthetic(False, 64)
    config = TrainingConfig(max_epochs=1, batch_size=16)
    trainer = Trainer(small("kernel_7"), *data, config, how=how)
    trainer.train()
    return [entry["training_loss"] for entry in trainer.history if "training_loss" in entry]


@pytest.mark.parametrize("broken", ["numba", "llvmlite"])
def test_where_the_kernels_fail_the_plain_layers_train_and_one_line_says_so(
    monkeypatch, caplog, broken
):
    for name in ("convnext_steps.cpu.kernels", "convnext_steps.cpu.vectors"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, broken, None)  # as if it were not installed
    run.kernels.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "convnext_steps"):
            assert losses(How()) == losses(How()) == losses(How(fast_cpu=False))
    finally:
        run.kernels.cache_clear()
    (record,) = caplog.records
    assert record.getMessage().startswith("depthwise convolutions train with PyTorch's own, slow")
    assert "\n" not in record.getMessage()


def test_training_with_them_is_training_without_them_but_for_rounding():
    assert losses(How()) == pytest.approx(losses(How(fast_cpu=False)), rel=1e-3)


@pytest.mark.slow
def test_importing_it_does_not_import_numba():
    """Only training needs the kernels: whoever evaluates should not wait for them."""
    program = "import sys, convnext_steps.training.trainer; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
