"""The roadmap against the paper's table, torchvision, and the layers that each step names."""

import csv
import hashlib
import re
from dataclasses import FrozenInstanceError, fields, replace
from functools import cache, partial
from itertools import combinations, groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from studies import torch_macs
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from convnext_steps.measure.flops import FlopCount, count_flops
from convnext_steps.models import paper
from convnext_steps.models.blocks import ResidualBlock, shortcut
from convnext_steps.models.design import Design, scaled
from convnext_steps.models.layers import LayerNorm2d
from convnext_steps.models.network import Network
from convnext_steps.models.roadmap import Step, find_step, roadmap

CSV = Path(paper.__file__).parent / "roadmap.csv"
SHA256 = "9aeba0c3f9ba6e79602634fbce72f7ee1ea9f933d885572d33c8a4bc596ee5a5"
with CSV.open(encoding="utf-8") as file:
    TABLE = {
        (row["regime"], row["step"]): row for row in csv.DictReader(file) if row["step"] != "swin"
    }
REGIMES = ("tiny", "base")
STEPS = [step for regime, step in TABLE if regime == "tiny"]

every_row = pytest.mark.parametrize(("regime", "name"), list(TABLE))
every_regime = pytest.mark.parametrize("regime", REGIMES)
every_step = pytest.mark.parametrize("name", STEPS)


def small(name: str, regime: str = "tiny") -> Design:
    """The study's own size: an eighth of the width, stem stride 2."""
    return scaled(roadmap(regime)[name].design, width=1 / 8, stem_stride=2)


def changed_fields(a: Design, b: Design) -> set[str]:
    return {f.name for f in fields(Design) if getattr(a, f.name) != getattr(b, f.name)}


def one_line(error: pytest.ExceptionInfo[ValueError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


# --- the paper's table ---------------------------------------------------------------------------


def build_empty(step: Step, device: str) -> nn.Module:
    """Build without drawing random numbers, which takes longer than to count."""
    with torch.device("meta"):
        model = step.build().eval()
    if device != "meta":
        model.to_empty(device=device)
        for tensor in model.state_dict().values():
            tensor.zero_()
    return model


@cache
def fvcore_count(regime: str, name: str) -> FlopCount:
    return count_flops(build_empty(roadmap(regime)[name], "cpu"))


def test_nobody_edited_the_papers_table() -> None:
    assert hashlib.sha256(CSV.read_bytes()).hexdigest() == SHA256


@every_regime
def test_the_roadmap_has_the_tables_steps_in_its_order(regime: str) -> None:
    assert len(STEPS) == 17
    assert list(roadmap(regime)) == [step for table, step in TABLE if table == regime] == STEPS
    assert [step.name for step in roadmap(regime).values()] == STEPS
    assert {step.regime for step in roadmap(regime).values()} == {regime}


@every_row
def test_counts_are_the_papers_to_the_unit_and_torchs_own(regime: str, name: str) -> None:
    row, count = TABLE[regime, name], fvcore_count(regime, name)
    macs = int(row["conv_linear_macs_224"])
    model = build_empty(roadmap(regime)[name], "meta")
    assert count.conv_linear == macs == torch_macs(model, 224)
    assert count.params == int(row["params_1000_classes"])


def test_the_print_differs_in_the_two_errata_only() -> None:
    differing = {
        (regime, name)
        for (regime, name), row in TABLE.items()
        if round(fvcore_count(regime, name).conv_linear / 1e9, 2) != float(row["gflops_printed"])
    }
    assert differing == {("tiny", "layer_norm"), ("tiny", "separate_downsampling")}
    assert differing == set(paper.ERRATA)
    steps = {(regime, step.name): step for regime in REGIMES for step in roadmap(regime).values()}
    assert {key for key, step in steps.items() if step.paper.erratum} == differing
    for key in differing:
        counted = fvcore_count(*key).conv_linear / 1e9
        printed = TABLE[key]["gflops_printed"]
        assert f"prints {printed}, the network counts {counted:.2f}" in paper.ERRATA[key]


@every_row
def test_the_published_numbers_are_reachable_from_the_step(regime: str, name: str) -> None:
    row, step = TABLE[regime, name], roadmap(regime)[name]
    assert (step.title, step.section, step.parent or "") == (
        row["title"],
        row["section"],
        row["parent"],
    )
    assert step.paper.top1_mean == float(row["top1_mean"])
    assert step.paper.top1_std == (float(row["top1_std"]) if row["top1_std"] else None)
    assert step.paper.gflops_printed == float(row["gflops_printed"])
    assert step.paper.macs == int(row["conv_linear_macs_224"])
    assert step.paper.params == int(row["params_1000_classes"])


def test_the_claim_is_one_line_with_the_papers_numbers() -> None:
    assert roadmap()["fewer_activations"].claim == (
        "fewer activations (Section 2.6): 81.27 ± 0.06 % top-1, +0.65 against ReLU -> GELU; "
        "4.15 GFLOPs, on ImageNet-1K"
    )
    assert roadmap("base")["depthwise"].claim == (
        'depthwise conv (Section 2.3): 80.54 % top-1, -1.05 against "patchify" stem; '
        "7.23 GFLOPs, on ImageNet-1K"
    )
    assert roadmap()["resnet_original"].claim == (
        "ResNet-50 (original recipe) (Section 2.1): 76.13 % top-1; 4.09 GFLOPs, on ImageNet-1K"
    )


# --- torchvision ---------------------------------------------------------------------------------


def randomise(model: nn.Module) -> nn.Module:
    """Values that no norm starts with, so that one left out, or another's, is seen."""
    torch.manual_seed(0)
    norms = (nn.BatchNorm2d, nn.LayerNorm)
    for module in model.modules():
        if isinstance(module, norms):
            nn.init.uniform_(module.weight, 0.3, 0.9)
            nn.init.normal_(module.bias, std=0.2)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.2)
    return model.eval()


def resnet_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's ResNet under our names."""
    names = {
        "conv1": "branch.reduce",
        "bn1": "branch.reduce_norm",
        "conv2": "branch.spatial",
        "bn2": "branch.spatial_norm",
        "conv3": "branch.expand",
        "bn3": "branch.expand_norm",
        "downsample": "shortcut",
    }
    ours = {}
    for key, value in state.items():
        first, rest = key.split(".", 1)
        if first.startswith("layer"):
            block, layer, rest = rest.split(".", 2)
            ours[f"stages.{int(first[-1]) - 1}.{block}.{names[layer]}.{rest}"] = value
        else:
            ours[f"{ {'conv1': 'stem.0', 'bn1': 'stem.1', 'fc': 'head.2'}[first] }.{rest}"] = value
    return ours


@torch.no_grad()
def test_the_resnet_gives_torchvisions_logits() -> None:
    theirs = randomise(torchvision.models.resnet50())
    ours = roadmap()["resnet"].build().eval()
    ours.load_state_dict(resnet_weights(theirs.state_dict()))
    images = torch.randn(2, 3, 64, 64)
    expected = theirs(images)
    assert 0.1 < expected.std() < 10
    torch.testing.assert_close(ours(images), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_layer_norm_is_over_the_channels_of_each_position() -> None:
    norm = randomise(LayerNorm2d(5))
    x = 1e-3 * torch.randn(2, 5, 3, 4)  # small, so that eps counts
    expected = F.layer_norm(x.movedim(1, -1), (5,), norm.weight, norm.bias, 1e-6).movedim(-1, 1)
    torch.testing.assert_close(norm(x), expected)
    with torch.autocast("cpu", torch.bfloat16):  # in float32, as on GPUs
        torch.testing.assert_close(norm(x.bfloat16()), norm(x.bfloat16().float()))


# --- what each step changes ----------------------------------------------------------------------


@every_row
def test_a_step_differs_from_its_parent_in_what_it_declares(regime: str, name: str) -> None:
    steps = roadmap(regime)
    step = steps[name]
    parent = steps[step.parent].design if step.parent else Design()
    assert changed_fields(parent, step.design) == set(step.changes)
    assert step.design == replace(parent, **step.changes)


def test_design_defaults_are_resnet_50() -> None:
    assert Design() == roadmap()["resnet"].design == roadmap()["resnet_original"].design


@every_regime
def test_probes_stand_beside_the_chain(regime: str) -> None:
    steps = roadmap(regime)
    probes = {"kernel_5", "kernel_9", "kernel_11"}
    assert {name for name, step in steps.items() if step.probe} == probes
    assert {steps[name].parent for name in probes} == {"move_up"}
    assert probes.isdisjoint({step.parent for step in steps.values()})
    chain = ["separate_downsampling"]
    while parent := steps[chain[-1]].parent:
        chain.append(parent)
    assert set(steps) - set(chain) == probes | {"resnet_original"}


# --- what is built -------------------------------------------------------------------------------


class Layers(NamedTuple):
    """A step's layers: i, w, o are a block's input, inner and output width, s its stride."""

    stem: str
    shortcut: str
    block: str  # branch + what follows the addition
    downsampling: str = ""
    head: str = "avgpool, flatten, linear {o}>{classes} bias"


RESNET_STEM = "conv{stem} 3>{w}, BN, ReLU, maxpool3/2"
PATCHES = "conv{patch}/{patch} 3>{w} bias"
PROJECTION = "conv1/{s} {i}>{o}, BN"
BOTTLENECK = "conv1/1 {i}>{w}, BN, ReLU, conv3/{s} {w}>{w}, BN, ReLU, conv1/1 {w}>{o}, BN + ReLU"

DEPTHWISE = BOTTLENECK.replace("conv3", "depthwise3")


def moved_up(kernel_size: int, activation: str) -> str:
    return (
        f"depthwise{kernel_size}/{{s}} {{i}}>{{i}}, BN, {activation}, "
        f"conv1/1 {{i}}>{{o4}}, BN, {activation}, conv1/1 {{o4}}>{{o}}, BN + {activation}"
    )


LAYERS = {
    "resnet_original": Layers(RESNET_STEM, PROJECTION, BOTTLENECK),
    "resnet": Layers(RESNET_STEM, PROJECTION, BOTTLENECK),
    "stage_ratio": Layers(RESNET_STEM, PROJECTION, BOTTLENECK),
    "patchify": Layers(PATCHES, PROJECTION, BOTTLENECK),
    "depthwise": Layers(PATCHES, PROJECTION, DEPTHWISE),
    "width": Layers(PATCHES, PROJECTION, DEPTHWISE),
    "inverted": Layers(
        PATCHES,
        PROJECTION,
        "conv1/1 {i}>{o4}, BN, ReLU, depthwise3/{s} {o4}>{o4}, BN, ReLU, "
        "conv1/1 {o4}>{o}, BN + ReLU",
    ),
    "move_up": Layers(PATCHES, PROJECTION, moved_up(3, "ReLU")),
    "kernel_5": Layers(PATCHES, PROJECTION, moved_up(5, "ReLU")),
    "kernel_7": Layers(PATCHES, PROJECTION, moved_up(7, "ReLU")),
    "kernel_9": Layers(PATCHES, PROJECTION, moved_up(9, "ReLU")),
    "kernel_11": Layers(PATCHES, PROJECTION, moved_up(11, "ReLU")),
    "gelu": Layers(PATCHES, PROJECTION, moved_up(7, "GELU")),
    "fewer_activations": Layers(
        PATCHES,
        PROJECTION,
        "depthwise7/{s} {i}>{i}, BN, conv1/1 {i}>{o4}, BN, GELU, conv1/1 {o4}>{o}, BN +",
    ),
    "fewer_norms": Layers(
        PATCHES,
        PROJECTION,
        "depthwise7/{s} {i}>{i}, BN, conv1/1 {i}>{o4}, GELU, conv1/1 {o4}>{o} +",
    ),
    "layer_norm": Layers(
        PATCHES,
        "conv1/{s} {i}>{o}, LN",
        "depthwise7/{s} {i}>{i} bias, LN, conv1/1 {i}>{o4} bias, GELU, conv1/1 {o4}>{o} bias +",
    ),
    "separate_downsampling": Layers(
        PATCHES + ", LN",
        "",
        "depthwise7/{s} {i}>{i} bias, LN, conv1/1 {i}>{o4} bias, GELU, conv1/1 {o4}>{o} bias +",
        downsampling="LN, conv2/2 {i}>{o} bias",
        head="avgpool, LN, flatten, linear {o}>{classes} bias",
    ),
}
BOTTLENECKS = ("resnet_original", "resnet", "stage_ratio", "patchify", "depthwise", "width")
NARROW = BOTTLENECKS[:-1]


def expected_depths(name: str, regime: str) -> tuple[int, ...]:
    if name in ("resnet_original", "resnet"):
        return (3, 4, 6, 3) if regime == "tiny" else (3, 24, 36, 3)
    return (3, 3, 9, 3) if regime == "tiny" else (3, 3, 27, 3)


def expected_width(name: str, regime: str, eighth: bool) -> int:
    if regime == "tiny":
        width = 64 if name in NARROW else 96
        return {64: 8, 96: 12}[width] if eighth else width
    width = {"resnet_original": 64, "resnet": 64}.get(name, 84 if name in NARROW else 128)
    return {64: 8, 84: 10, 128: 16}[width] if eighth else width


def expected_layers(name: str, regime: str, eighth: bool) -> list[str]:
    layers, width = LAYERS[name], expected_width(name, regime, eighth)
    stem, patch = ("3/1", 2) if eighth else ("7/2", 4)
    lines = [f"stem: {layers.stem.format(stem=stem, patch=patch, w=width)}"]
    i = width
    for stage, depth in enumerate(expected_depths(name, regime)):
        w = width * 2**stage
        o = 4 * w if name in BOTTLENECKS else w
        s = 1 if stage == 0 else 2
        blocks = range(depth)
        if stage > 0 and layers.downsampling:
            lines.append(f"stages.{stage}: {layers.downsampling.format(i=i, o=o)}")
            i, s, blocks = o, 1, range(2, depth + 2)  # after a norm and a convolution
        for block in blocks:
            sizes = {"i": i, "w": w, "o": o, "o4": 4 * o, "s": s}
            projected = layers.shortcut.format(**sizes) if s == 2 or i != o else ""
            lines.append(f"stages.{stage}.{block}: [{projected}] {layers.block.format(**sizes)}")
            i, s = o, 1
    return [*lines, f"head: {layers.head.format(o=i, classes=10 if eighth else 1000)}"]


def describe(layer: nn.Module) -> str:
    """One layer in a word or two; what no step has is printed whole."""
    if isinstance(layer, nn.Conv2d):
        k, stride, i, o = (
            layer.kernel_size[0],
            layer.stride[0],
            layer.in_channels,
            layer.out_channels,
        )
        assert (layer.kernel_size, layer.stride) == ((k, k), (stride, stride))
        assert (layer.dilation, layer.padding_mode) == ((1, 1), "zeros")
        kind = {1: "conv", i: "depthwise"}.get(layer.groups, f"{layer.groups} groups ")
        return f"{kind}{k}/{stride} {i}>{o}" + (" bias" if layer.bias is not None else "")
    if isinstance(layer, nn.Linear):
        bias = " bias" if layer.bias is not None else ""
        return f"linear {layer.in_features}>{layer.out_features}{bias}"
    if isinstance(layer, nn.MaxPool2d):
        return f"maxpool{layer.kernel_size}/{layer.stride}"
    if isinstance(layer, nn.BatchNorm2d):
        return "BN" if repr(layer) == repr(nn.BatchNorm2d(layer.num_features)) else repr(layer)
    if isinstance(layer, LayerNorm2d):
        (channels,) = layer.normalized_shape
        return "LN" if repr(layer) == repr(LayerNorm2d(channels, eps=1e-6)) else repr(layer)
    words = {
        repr(nn.ReLU(inplace=True)): "ReLU",
        repr(nn.GELU()): "GELU",
        repr(nn.AdaptiveAvgPool2d(1)): "avgpool",
        repr(nn.Flatten()): "flatten",
    }
    return words.get(repr(layer), repr(layer))


def describe_part(called: list[tuple[str, str]]) -> str:
    """[shortcut] branch + what follows for a block, else its layers, in the order of the calls."""
    shortcut = ", ".join(word for name, word in called if ".shortcut" in name)
    branch = ", ".join(word for name, word in called if ".branch" in name)
    rest = ", ".join(word for name, word in called if not re.search("shortcut|branch", name))
    return f"[{shortcut}] {branch} + {rest}".rstrip() if branch else rest


def called_layers(design: Design, num_classes: int, side: int) -> tuple[list[str], list[int]]:
    """One line a block or other part of what a forward pass calls, and the side of each stage."""
    with torch.device("meta"):
        network = Network(design, num_classes=num_classes).eval()
        images = torch.empty(1, 3, side, side)
    called: list[tuple[str, str]] = []
    sides: list[int] = []
    for name, layer in network.named_modules():
        if not list(layer.children()) and not isinstance(layer, nn.Identity):
            layer.register_forward_hook(
                lambda layer, *_, name=name: called.append((name, describe(layer)))
            )
    for stage in network.stages:
        stage.register_forward_hook(lambda _, __, output: sides.append(output.shape[-1]))
    network(images)
    # stages.0.1 for the layers of a block, stages.1 for downsampling, stem, head
    parts = groupby(called, lambda call: re.match(r"stages\.\d+(\.\d+(?=\.))?|\w+", call[0])[0])
    return [f"{part}: {describe_part(list(calls))}" for part, calls in parts], sides


@pytest.mark.parametrize("eighth", [False, True], ids=["full", "eighth"])
@every_row
def test_the_network_has_the_layers_of_its_step(regime: str, name: str, eighth: bool) -> None:
    design = small(name, regime) if eighth else roadmap(regime)[name].design
    layers, sides = called_layers(design, 10 if eighth else 1000, 64 if eighth else 224)
    assert layers == expected_layers(name, regime, eighth)
    assert sides == ([32, 16, 8, 4] if eighth else [56, 28, 14, 7])


@torch.no_grad()
@every_step
def test_a_block_is_its_shortcut_plus_its_branch(name: str) -> None:
    network = randomise(Network(small(name), num_classes=10))
    blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
    activation = {"relu": F.relu, "gelu": F.gelu}[network.design.activation]
    if network.design.activations_per_block == 1:
        activation = nn.Identity()
    for block in blocks:
        channels = next(m.in_channels for m in block.branch if isinstance(m, nn.Conv2d))
        x = torch.randn(2, channels, 6, 6)
        expected = activation(block.shortcut(x) + block.branch(x))
        torch.testing.assert_close(block(x), expected)
        assert not torch.allclose(block(x), activation(block.shortcut(x)))


# Other values of every field. A new field of Design needs a line here.
VALUES = {
    "depths": [(1, 1, 1, 1), (2, 1, 1, 1), (1, 2, 1, 1), (1, 1, 2, 1), (1, 1, 1, 2)],
    "width": [8, 9],
    "stem": ["resnet", "patchify"],
    "stem_stride": [2, 4],
    "depthwise": [False, True],
    "layout": ["bottleneck", "inverted", "depthwise_first"],
    "kernel_size": [3, 5, 7],
    "activation": ["relu", "gelu"],
    "activations_per_block": [1, 3],
    "norm": ["batch", "layer"],
    "norms_per_block": [1, 3],
    "downsampling": ["in_block", "separate"],
}


@pytest.mark.parametrize("start", ["resnet", "width", "inverted", "kernel_7", "layer_norm"])
@pytest.mark.parametrize("field", [field.name for field in fields(Design)])
def test_every_field_of_design_is_wired(field: str, start: str) -> None:
    base = replace(roadmap()[start].design, depths=(1, 1, 1, 1), width=8)
    designs = [replace(base, **{field: value}) for value in VALUES[field]]
    networks = [called_layers(design, 10, 32)[0] for design in designs]
    assert all(a != b for a, b in combinations(networks, 2))


# A shift that the next BatchNorm takes out again, with nothing but 1x1 convolutions in between.
SWALLOWED = {
    "patchify": "stem.0.bias",
    "depthwise": "stem.0.bias",
    "width": "stem.0.bias",
    "fewer_activations": "spatial_norm.bias",
}


@pytest.mark.parametrize("mode", ["train", "eval"])
@every_step
def test_gradients_reach_every_parameter(name: str, mode: str) -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    weights = torch.randn(4, 10, dtype=torch.float64)
    network = Network(small(name), num_classes=10).double().train(mode == "train")
    (network(images) * weights).sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        reached = bool(parameter.grad.abs().max() > 1e-9)
        swallowed = mode == "train" and name in SWALLOWED and key.endswith(SWALLOWED[name])
        assert reached != swallowed, key


@every_step
def test_a_step_builds_its_own_design(name: str) -> None:
    step = roadmap()[name]
    with torch.device("meta"):
        network = step.build(num_classes=7, in_channels=2, drop_path_rate=0.25)
    assert network.design == step.design
    assert network.stem[0].in_channels == 2
    assert network.head[-1].out_features == 7
    assert [m.p for m in network.modules() if isinstance(m, StochasticDepth)][-1] == 0.25


@every_step
def test_drop_path_grows_linearly_from_block_to_block(name: str) -> None:
    network = Network(small(name), drop_path_rate=0.4)
    blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
    drops = [[m for m in block.modules() if isinstance(m, StochasticDepth)] for block in blocks]
    assert [len(layers) for layers in drops] == [0] + [1] * (len(blocks) - 1)
    expected = [0.4 * index / (len(blocks) - 1) for index in range(1, len(blocks))]
    assert [layer.p for (layer,) in drops[1:]] == pytest.approx(expected)
    assert {layer.mode for (layer,) in drops[1:]} == {"row"}
    assert not any(isinstance(m, StochasticDepth) for m in Network(small(name)).modules())


@torch.no_grad()
def test_drop_path_drops_the_branch_and_leaves_the_shortcut() -> None:
    for name in ("resnet", "separate_downsampling"):
        block = Network(small(name), drop_path_rate=0.5).stages[3][-1]
        (drop,) = (module for module in block.modules() if isinstance(module, StochasticDepth))
        drop.p = 1.0
        x = torch.randn(4, {"resnet": 256, "separate_downsampling": 96}[name], 4, 4).abs()
        torch.testing.assert_close(block.train()(x), x)
        assert not torch.allclose(block.eval()(x), x)


@every_step
def test_initialisation_is_pytorchs_own(name: str) -> None:
    torch.manual_seed(0)
    for layer in Network(small(name)).modules():
        if isinstance(layer, nn.BatchNorm2d | nn.LayerNorm):
            assert (layer.weight == 1).all()
            assert (layer.bias == 0).all()
        if isinstance(layer, nn.Conv2d | nn.Linear):  # uniform within 1 / sqrt(fan in)
            bound = layer.weight[0].numel() ** -0.5
            assert layer.weight.abs().max() <= bound
            if layer.weight.numel() >= 500:
                assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
                assert layer.weight.mean().item() == pytest.approx(0, abs=0.1 * bound)
            if layer.bias is not None:
                assert layer.bias.abs().max() <= bound
                assert layer.bias.std() > 0.2 * bound


# --- small images --------------------------------------------------------------------------------


def test_scaled_gives_the_documented_numbers() -> None:
    resnet, convnext = roadmap()["resnet"].design, roadmap()["separate_downsampling"].design
    assert scaled(resnet, 1 / 8, 1 / 3, 2) == Design(depths=(1, 1, 2, 1), width=8, stem_stride=2)
    last = scaled(convnext, width=1 / 8, depth=1 / 3)
    assert (last.width, last.depths, last.stem_stride) == (12, (1, 1, 3, 1), 4)
    assert scaled(convnext) == convnext
    least = scaled(convnext, width=1e-6, depth=1e-6)
    assert (least.width, least.depths) == (1, (1, 1, 1, 1))


# The smallest side at stem stride 4 and 2, by hand: a patch; a patch halved three times.
def expected_smallest_side(name: str, stem_stride: int) -> int:
    if name in ("resnet_original", "resnet", "stage_ratio"):
        return 1
    return 8 * stem_stride if name == "separate_downsampling" else stem_stride


@torch.no_grad()
@pytest.mark.parametrize("stem_stride", [4, 2])
@every_step
def test_images_too_small_are_refused_and_no_others(name: str, stem_stride: int) -> None:
    design = scaled(roadmap()[name].design, 1 / 8, stem_stride=stem_stride)
    side = expected_smallest_side(name, stem_stride)
    assert design.smallest_side == side
    network = Network(design, num_classes=10).eval()
    assert network(torch.zeros(1, 3, side, side)).shape == (1, 10)
    for height, width in ((side - 1, side - 1), (side - 1, 64), (64, side - 1)):
        images = torch.zeros(1, 3, height, width)
        with pytest.raises(ValueError, match=f"{height}x{width}.* at least {side} pixels") as error:
            network(images)
        one_line(error)
        if side > 1:  # the layers themselves can't either: the limit is no stricter than they are
            with pytest.raises(RuntimeError):
                network.head(network.stages(network.stem(images)))


# --- what is refused -----------------------------------------------------------------------------


def test_designs_and_the_roadmap_can_not_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Design().width = 3
    with pytest.raises(FrozenInstanceError):
        roadmap()["gelu"].design = Design()
    with pytest.raises(TypeError):
        roadmap()["gelu"] = roadmap()["resnet"]
    with pytest.raises(TypeError):
        roadmap()["gelu"].changes["width"] = 3
    assert len({step.design for step in roadmap().values()}) == 16  # hashable; two are one network


def network(**options: object) -> Network:
    return Network(small("gelu"), **options)


@pytest.mark.parametrize(
    ("build", "field", "value"),
    [
        (Design, "depths", (3, 3, 9)),
        (Design, "depths", (3, 3, 9, 3, 3)),
        (Design, "depths", (3, 0, 9, 3)),
        (Design, "depths", ()),
        (Design, "width", 0),
        (Design, "width", -8),
        (Design, "stem", "convnext"),
        (Design, "stem_stride", 3),
        (Design, "layout", "basic"),
        (Design, "kernel_size", 0),
        (Design, "kernel_size", -3),
        (Design, "kernel_size", 4),
        (Design, "activation", "silu"),
        (Design, "activations_per_block", 2),
        (Design, "norm", "group"),
        (Design, "norms_per_block", 0),
        (Design, "downsampling", "pool"),
        (Design, "depthwise", "no"),
        (Design, "kernel_size", 13.0),
        (Design, "depths", 3),
        (partial(scaled, Design()), "width", 0),
        (partial(scaled, Design()), "width", -1),
        (partial(scaled, Design()), "depth", 0),
        (partial(scaled, Design()), "depth", -1 / 3),
        (partial(scaled, Design()), "stem_stride", 3),
        (network, "num_classes", -1),
        (network, "in_channels", 0),
        (network, "drop_path_rate", -0.1),
        (network, "drop_path_rate", 1.0),
    ],
)
def test_a_bad_value_is_refused_in_one_line(build, field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field) as error:
        build(**{field: value})
    assert str(value) in one_line(error)


def test_a_number_of_numpy_is_a_number() -> None:
    assert Design(width=np.int64(32)) == Design(width=32)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("kernel7", "did you mean 'kernel_7'?"),
        ("GELU", "did you mean 'gelu'?"),
        ("zzz", f"choose from {', '.join(STEPS)}"),
    ],
)
def test_an_unknown_step_names_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match="unknown step") as error:
        find_step(name)
    assert one_line(error) == f"unknown step {name!r}; {hint}"
    with pytest.raises(ValueError, match="unknown regime 'tinny'; did you mean 'tiny'"):
        find_step("gelu", "tinny")


def test_a_narrow_projection_computes_what_pytorchs_does_and_stays_within_its_memory() -> None:
    """PyTorch's own gradient, channels-last, ends the process within a few of these."""
    for size in (16, 15):
        x = torch.randn(32, 6, size, size).contiguous(memory_format=torch.channels_last)
        for _ in range(30):
            projection = shortcut(Design(), 6, 12, 2)[0].to(memory_format=torch.channels_last)
            result = projection(x)
            result.square().sum().backward()
        reference = nn.Conv2d(6, 12, 1, 2, bias=False)  # channels first: PyTorch's is right
        reference.load_state_dict(projection.state_dict())
        expected = reference(x.contiguous())
        expected.square().sum().backward()
        torch.testing.assert_close(result, expected)
        torch.testing.assert_close(
            projection.weight.grad, reference.weight.grad, rtol=1e-4, atol=1e-2
        )
