"""The published family against the paper's numbers and the authors' code."""

import csv
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from studies import torch_macs
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from convnext_steps.errors import WeightsError
from convnext_steps.models import convnext
from convnext_steps.models.convnext import ConvNeXt, ConvNeXtIsotropic
from convnext_steps.models.roadmap import roadmap

PAPER = Path(convnext.__file__).parent / "paper" / "family.csv"
with PAPER.open() as file:
    FAMILY = {row["builder"]: row for row in csv.DictReader(file)}

SMALL = {"depths": (1, 2, 3, 2), "dims": (8, 12, 16, 20)}


def build(builder: str, **options: object) -> nn.Module:
    return getattr(convnext, builder)(**options)


def small(**options: object) -> ConvNeXt:
    return ConvNeXt(**SMALL, **options)


def drop_path_rates(model: nn.Module) -> list[float]:
    return [module.p for module in model.modules() if isinstance(module, StochasticDepth)]


@pytest.mark.parametrize("builder", FAMILY)
def test_parameters_are_the_papers_to_the_unit(builder: str) -> None:
    with torch.device("meta"):
        model = build(builder)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == int(FAMILY[builder]["params_1000_classes"])


@pytest.mark.parametrize("builder", FAMILY)
def test_multiply_adds_are_the_papers_to_the_unit(builder: str) -> None:
    paper = FAMILY[builder]
    at_224 = int(paper["conv_linear_macs_224"])
    # Table 2 has no 384: without the head, the work is proportional to the 14 x 14 patches.
    head = 1000 * int(paper["dims"].split("-")[-1])
    at_384 = int(paper["conv_linear_macs_384"] or (at_224 - head) * 24**2 // 14**2 + head)
    with torch.device("meta"):
        model = build(builder)
    assert (torch_macs(model, 224), torch_macs(model, 384)) == (at_224, at_384)


@pytest.mark.parametrize("builder", FAMILY)
def test_docstring_tells_the_papers_numbers(builder: str) -> None:
    paper, doc = FAMILY[builder], getattr(convnext, builder).__doc__
    columns = ("top1_1k_224", "top1_1k_384", "top1_22k_224", "top1_22k_384")
    told = [paper[column] for column in columns if paper[column]]
    told.append(f"{int(paper['params_1000_classes']) / 1e6:.1f} M parameters")
    told.append(f"{int(paper['conv_linear_macs_224']) / 1e9:.2f} GFLOPs")
    assert [number for number in told if number not in doc] == []


def test_the_roadmap_arrives_here() -> None:
    torch.manual_seed(0)
    step = roadmap()["separate_downsampling"].build().eval()
    model = build("convnext_tiny", layer_scale_init_value=0).eval()
    parts = [*zip(model.downsample_layers, model.stages, strict=True), (model.norm, model.head)]
    ours = [parameter for pair in parts for part in pair for parameter in part.parameters()]
    with torch.no_grad():
        for parameter, theirs in zip(ours, step.parameters(), strict=True):
            if theirs.ndim == 1:
                theirs.normal_()  # norms, which begin as ones and zeros, too
            assert theirs.shape[: parameter.ndim] == parameter.shape
            parameter.copy_(theirs.view_as(parameter))  # linear layers are 1x1 convolutions there
        images = torch.randn(2, 3, 64, 64)
        logits = step(images)
        assert logits.std() > 0.01
        torch.testing.assert_close(model(images), logits, atol=1e-5, rtol=1e-5)


def test_options_reach_the_builders_model() -> None:
    model = convnext.convnext_tiny(
        in_channels=1,
        num_classes=10,
        drop_path_rate=0.3,
        layer_scale_init_value=0.5,
        head_init_scale=0.0,
    )
    assert model.downsample_layers[0][0].weight.shape == (96, 1, 4, 4)
    assert model.head.weight.shape == (10, 768)
    assert not model.head.weight.any()
    assert max(drop_path_rates(model)) == 0.3
    assert (model.stages[3][2].gamma == 0.5).all()


@pytest.mark.parametrize("builder", FAMILY)
def test_every_builder_loads_what_it_is_given(builder: str) -> None:
    with torch.device("meta"), pytest.raises(WeightsError, match=r"nowhere\.pth: no such file"):
        build(builder, pretrained="nowhere.pth")


def test_weights_start_as_the_authors_do() -> None:
    model = convnext.convnext_isotropic_small(layer_scale_init_value=1e-6)
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            assert (parameter == 1e-6).all(), name
        elif name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05), name


def test_head_init_scale_scales_the_head_alone() -> None:
    torch.manual_seed(0)
    plain = small()
    torch.manual_seed(0)
    scaled = small(head_init_scale=0.001)
    assert torch.equal(scaled.head.weight, 0.001 * plain.head.weight)
    assert torch.equal(scaled.stages[3][1].pwconv2.weight, plain.stages[3][1].pwconv2.weight)
    scaled.reset_head()
    assert 0 < scaled.head.weight.std() < 0.0001


def test_drop_path_grows_linearly_over_all_blocks() -> None:
    tiny = drop_path_rates(small(drop_path_rate=0.7))
    assert tiny == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    isotropic = drop_path_rates(ConvNeXtIsotropic(depth=3, dim=8, drop_path_rate=0.5))
    assert isotropic == pytest.approx([0.0, 0.25, 0.5])


def test_every_layers_output_is_its_own_and_hooks_of_both_ways_work() -> None:
    model, seen = small().eval(), {}
    block = model.stages[0][0]
    block.gamma.data.fill_(0.5)
    for name, layer in (("block", block), ("drop_path", block.drop_path)):
        layer.register_forward_hook(lambda *given, name=name: seen.update({name: given[2]}))
    for layer in model.modules():
        layer.register_full_backward_hook(lambda *_: None)
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    stem = model.downsample_layers[0](images)
    model(images).sum().backward()
    branch = block.gamma[:, None, None] * seen["drop_path"]
    assert torch.allclose(seen["block"], stem + branch)
    assert branch.abs().max() > 1e-4


def test_drop_path_drops_whole_branches_per_image_and_only_in_training() -> None:
    torch.manual_seed(0)
    block = small(drop_path_rate=0.5, layer_scale_init_value=1.0).stages[3][1]
    x = torch.randn(64, 20, 2, 2)
    branch = block.eval()(x) - x
    dropped = block.train()(x) - x
    kept = dropped.flatten(1).any(1)
    assert 16 < kept.sum() < 48
    assert torch.allclose(dropped[kept], 2 * branch[kept], atol=1e-5)  # 1 / (1 - 0.5)


def test_pyramid_holds_the_four_stages_maps() -> None:
    model = small(in_channels=1).eval()
    images = torch.randn(2, 1, 96, 64)
    maps = model.forward_pyramid(images)
    shapes = [(2, 8, 24, 16), (2, 12, 12, 8), (2, 16, 6, 4), (2, 20, 3, 2)]
    assert [tuple(each.shape) for each in maps] == shapes
    pooled = F.layer_norm(maps[-1].mean((2, 3)), (20,), eps=1e-6)  # the norm is still 1 and 0
    assert torch.allclose(model.forward_features(images), pooled, atol=1e-6)
    assert torch.equal(model(images), model.head(model.forward_features(images)))


@pytest.mark.parametrize(("model", "side"), [(small(), 32), (ConvNeXtIsotropic(1, 8), 16)])
def test_images_below_the_smallest_side_are_refused(model: nn.Module, side: int) -> None:
    assert model(torch.zeros(1, 3, side, side)).isfinite().all()
    with pytest.raises(ValueError, match=f"{side - 1}x64 .* at least {side} pixels"):
        model(torch.zeros(1, 3, side - 1, 64))


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (3, 32, 32)])
def test_images_of_another_layout_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes images \(N, 3, H, W\), not \("):
        small()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("in_channels", 0),
        ("drop_path_rate", 1.0),
        ("layer_scale_init_value", -1e-6),
        ("depths", (3, 3, 9)),
    ],
)
def test_misuse_is_one_clear_error(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=option) as caught:
        convnext.ConvNeXt(**{**SMALL, option: value})
    assert "\n" not in str(caught.value)


@torch.no_grad()
def test_an_isotropic_network_is_patches_then_blocks_then_a_head() -> None:
    torch.manual_seed(0)
    model = ConvNeXtIsotropic(depth=2, dim=8, num_classes=5, layer_scale_init_value=0.5).eval()
    for parameter in model.parameters():
        parameter.normal_(std=0.5)  # norms and biases, which begin as ones and zeros, too
    of = dict(model.named_parameters())

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, of[f"{name}.weight"], of[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (8,), of[f"{name}.weight"], of[f"{name}.bias"], 1e-6)

    images = torch.randn(2, 3, 32, 48)
    x = F.conv2d(images, of["stem.weight"], of["stem.bias"], stride=16)
    for block in ("blocks.0", "blocks.1"):
        kernel, bias = of[f"{block}.dwconv.weight"], of[f"{block}.dwconv.bias"]
        y = F.conv2d(x, kernel, bias, padding=3, groups=8).movedim(1, -1)
        y = F.gelu(linear(norm(y, f"{block}.norm"), f"{block}.pwconv1"))
        x = x + (of[f"{block}.gamma"] * linear(y, f"{block}.pwconv2")).movedim(-1, 1)
    expected = linear(norm(x.mean((2, 3)), "norm"), "head")
    torch.testing.assert_close(model(images), expected)
