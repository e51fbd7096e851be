"""What a network costs, and what changes from step to step."""

import warnings

import pytest
import torch
import torchvision
from test_roadmap import small
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from convnext_steps.measure.compare import compare_counts
from convnext_steps.measure.diff import step_diff
from convnext_steps.measure.flops import count_flops
from convnext_steps.models.design import Design
from convnext_steps.models.layers import LayerNorm2d
from convnext_steps.models.network import Network
from convnext_steps.models.roadmap import roadmap

# --- count_flops ---------------------------------------------------------------------------------


def test_convnext_tiny_is_counted_as_the_paper_and_fvcore_do() -> None:
    convnext_tiny = count_flops(roadmap()["separate_downsampling"].build())
    assert convnext_tiny.total == 4470437376
    # The norms by hand: stem, blocks, downsampling, head; 5 a LayerNorm's element.
    stages = 3 * 96 * 56**2 + 3 * 192 * 28**2 + 9 * 384 * 14**2 + 3 * 768 * 7**2
    elements = 96 * 56**2 + stages + 96 * 56**2 + 192 * 28**2 + 384 * 14**2 + 768
    assert convnext_tiny.norm == 5 * elements
    assert convnext_tiny.by_operator == {
        "adaptive_avg_pool2d": 768 * 7**2,
        "conv": 4455531264 - 768 * 1000,
        "layer_norm": 5 * elements,
        "linear": 768 * 1000,
    }
    assert convnext_tiny.uncounted == {"aten::add": 18, "aten::gelu": 18}  # one of each a block
    assert str(convnext_tiny) == (
        "4.456 G multiply-adds in convolutions and linear layers "
        "(4.470 G with norms and pooling), 28.58 M parameters"
    )


@pytest.mark.parametrize(("norm", "an_element"), [(LayerNorm2d, 5), (nn.BatchNorm2d, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_norms_are_counted_in_eval_mode(norm: type, an_element: int, training: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), norm(8)).train(training)
    count = count_flops(model, 16)
    assert count.norm == an_element * 8 * 16 * 16
    assert count.conv_linear == 3 * 3 * 3 * 8 * 16 * 16
    assert count.total == count.norm + count.conv_linear
    assert count.params == 3 * 3 * 3 * 8 + 2 * 8


class Products(nn.Module):
    """Products of matrices by every name that PyTorch has for them."""

    def __init__(self, product) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.product = product

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.product(self.scale * x.flatten(2))  # (1, 3, 16)


PRODUCTS = {
    "mm": lambda x: torch.mm(x[0], x[0].T),
    "bmm": lambda x: torch.bmm(x, x.transpose(1, 2)),
    "baddbmm": lambda x: torch.baddbmm(torch.zeros(1, 3, 3), x, x.transpose(1, 2)),
    "einsum": lambda x: torch.einsum("bij,bkj->bik", x, x),
    "matmul": lambda x: x @ x.transpose(1, 2),
    "linear": lambda x: nn.functional.linear(x, torch.ones(3, 16)),
    "attention": lambda x: nn.functional.scaled_dot_product_attention(x, x, x[..., :5]),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_every_product_of_matrices_is_counted(name: str) -> None:
    expected = 3 * 3 * 16 + (3 * 3 * 5 if name == "attention" else 0)
    assert count_flops(Products(PRODUCTS[name]), 4, in_channels=3).conv_linear == expected


@pytest.mark.parametrize(("name", "paper"), [("vit_b_16", 17.56), ("swin_t", 4.49)])
def test_attention_is_counted_as_torchs_own_counter_and_torchvision_do(name, paper) -> None:
    model = getattr(torchvision.models, name)().eval()
    count = count_flops(model, 224)
    assert torch.backends.mha.get_fastpath_enabled()  # as before
    torch.backends.mha.set_fastpath_enabled(False)  # its counter does not see through it either
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            model(torch.zeros(1, 3, 224, 224))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert count.conv_linear == counter.get_total_flops() / 2
    assert count.conv_linear / 1e9 == pytest.approx(paper, abs=0.01)
    assert "not counted" not in str(count)


def test_what_is_not_counted_is_named_where_the_count_is_printed() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(16, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.lstm(x[0])[0]

    assert str(count_flops(Recurrent(), 16, in_channels=3)).endswith("not counted: aten::lstm")


def test_the_model_is_left_as_it_is() -> None:
    model = Network(small("resnet"), num_classes=10).train()
    model(torch.randn(4, 3, 32, 32)).sum().backward()
    model.stem.eval()
    model.stages[1][0].branch.eval()
    model.stem.register_forward_hook(lambda *_: None)

    def state() -> list[object]:
        modes = [module.training for module in model.modules()]
        tensors = [*model.state_dict().values(), *(p.grad for p in model.parameters())]
        content = [tensor.numpy(force=True).tobytes() for tensor in tensors]
        hooks = [(*m._forward_hooks, *m._forward_pre_hooks) for m in model.modules()]
        return [modes, hooks, content, torch.get_rng_state().tolist()]

    before = state()
    assert {True, False} == set(before[0])
    count_flops(model, 32)
    with pytest.raises(RuntimeError, match="to have 3 channels"):
        count_flops(model, 32, in_channels=4)
    assert state() == before
    assert all(parameter.requires_grad for parameter in model.parameters())
    evaluated = Network(small("resnet"), num_classes=10).eval()
    count_flops(evaluated, 32)
    assert not any(module.training for module in evaluated.modules())
    lazy = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2))
    assert count_flops(lazy, 4).conv_linear == 4 * 4 * 27 + 16 * 2
    assert lazy(torch.zeros(1, 3, 4, 4)).shape == (1, 2)


def test_counting_warns_of_nothing(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = count_flops(
            Network(small("separate_downsampling"), num_classes=10, drop_path_rate=0.1), 32
        )
    assert count.uncounted
    assert [str(warning.message) for warning in caught] == []
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("in_channels", [1, 4])
def test_images_have_the_channels_of_the_first_convolution(in_channels: int) -> None:
    coloured = count_flops(Network(small("patchify"), num_classes=10), 32)
    other = count_flops(Network(small("patchify"), in_channels=in_channels, num_classes=10), 32)
    a_channel = 8 * 2 * 2 * 16 * 16  # 2x2 patches, 8 channels out, at 16x16 positions
    assert other.conv_linear == coloured.conv_linear + (in_channels - 3) * a_channel
    explicit = Network(small("patchify"), in_channels=in_channels, num_classes=10)
    assert count_flops(explicit, 32, in_channels=in_channels) == other


def test_a_model_without_convolution_needs_in_channels() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 8 * 8, 10))
    with pytest.raises(ValueError, match="in_channels") as error:
        count_flops(model, 8)
    assert "\n" not in str(error.value)
    assert count_flops(model, 8, in_channels=2).conv_linear == 2 * 8 * 8 * 10
    assert count_flops(nn.Flatten(), 8, in_channels=2).conv_linear == 0


# --- step_diff -----------------------------------------------------------------------------------


def changed_lines(text: str) -> list[str]:
    """The lines of a unified diff that go or come, without its two headers."""
    return [line for line in text.splitlines()[2:] if line[0] in "-+"]


def test_gelu_replaces_every_relu_of_the_stage() -> None:
    diff = step_diff("kernel_7", "gelu")
    assert diff.fields == {"activation": ("relu", "gelu")}
    assert diff.modules.splitlines()[:2] == ["--- kernel_7", "+++ gelu"]
    changed = changed_lines(diff.modules)
    assert [line.split(": ")[1] for line in changed if line[0] == "-"] == ["ReLU(inplace=True)"] * 6
    gelus = ["GELU(approximate='none')"] * 6
    assert [line.split(": ")[1] for line in changed if line[0] == "+"] == gelus
    assert str(diff).startswith("-activation = 'relu'\n+activation = 'gelu'\n\n--- kernel_7\n")
    assert str(diff).endswith(diff.modules)


def test_stage_ratio_changes_how_many_blocks_the_stage_has() -> None:
    diff = step_diff("resnet", "stage_ratio")
    assert diff.fields == {"depths": ((3, 4, 6, 3), (3, 3, 9, 3))}
    assert changed_lines(diff.modules) == [
        "-  (1-5): 5 x ResidualBlock(",
        "+  (1-8): 8 x ResidualBlock(",
    ]


def test_separate_downsampling_changes_stem_stage_and_head() -> None:
    text = str(step_diff("layer_norm", "separate_downsampling"))
    lines = text.splitlines()
    assert lines[:2] == ["-downsampling = 'in_block'", "+downsampling = 'separate'"]
    assert "+  (1): LayerNorm2d((96,), eps=1e-06, elementwise_affine=True" in text
    assert "+  (1): Conv2d(192, 384, kernel_size=(2, 2), stride=(2, 2))" in lines
    assert "+  (1): LayerNorm2d((768,), eps=1e-06, elementwise_affine=True" in text
    assert "-    (shortcut): Sequential(" in lines


def test_the_regime_says_where_names_are_looked_up() -> None:
    assert step_diff("resnet", "stage_ratio", "base").fields == {
        "depths": ((3, 24, 36, 3), (3, 3, 27, 3)),
        "width": (64, 84),
    }


def test_designs_are_compared_as_steps_are() -> None:
    steps = roadmap()
    names = step_diff("depthwise", "width")
    designs = step_diff(steps["depthwise"].design, steps["width"].design)
    assert designs.fields == names.fields == {"width": (64, 96)}
    assert designs.modules.splitlines()[:2] == ["--- design", "+++ design"]
    assert designs.modules.splitlines()[2:] == names.modules.splitlines()[2:]
    mixed = step_diff("resnet", small("resnet"))
    assert mixed.fields == {"width": (64, 8), "stem_stride": (4, 2)}
    assert mixed.modules.splitlines()[:2] == ["--- resnet", "+++ design"]


def test_the_two_resnets_are_one_network() -> None:
    diff = step_diff("resnet_original", "resnet")
    assert (diff.fields, diff.modules) == ({}, "")
    assert str(diff) == "no difference in the network"
    assert str(step_diff(Design(), Design())) == "no difference in the network"


def test_comparing_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    step_diff("width", "inverted")
    assert torch.equal(before, torch.get_rng_state())


# --- compare_counts ------------------------------------------------------------------------------


def test_our_counts_stand_beside_the_papers() -> None:
    steps = roadmap()
    names = ["resnet", "gelu", "layer_norm", "separate_downsampling"]
    table = compare_counts(steps[name] for name in names)
    assert table.index.name == "step"
    assert list(table.index) == names
    columns = ["section", "counted", "printed", "with norms", "params", "top-1 %"]
    assert list(table.columns) == columns
    assert table.drop(columns="with norms").to_numpy().tolist() == [
        ["2.1", "4.089", "4.09", "25.557", "78.82"],
        ["2.6", "4.146", "4.15", "25.863", "80.62"],
        ["2.6", "4.146", "4.46*", "25.836", "81.47"],
        ["2.6", "4.456", "4.49*", "28.583", "81.97"],
    ]
    assert table.loc["separate_downsampling", "with norms"] == "4.470"
    # ResNet-50's 53 BatchNorms see 11113984 elements, its pooling 2048 x 7 x 7.
    total = 4089184256 + 2 * 11113984 + 2048 * 49
    assert table.loc["resnet", "with norms"] == f"{total / 1e9:.3f}" == "4.112"
