"""Other people's weights: loaded exactly, or refused in one line with the model untouched."""

import argparse
import os
import pickle
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from convnext_steps.errors import WeightsError
from convnext_steps.models import convnext
from convnext_steps.models.convnext import ConvNeXt, ConvNeXtIsotropic
from convnext_steps.models.design import scaled
from convnext_steps.models.network import Network
from convnext_steps.models.roadmap import roadmap
from convnext_steps.models.weights import load_weights, official_addresses

SIZES = ["tiny", "small", *(pytest.param(s, marks=pytest.mark.slow) for s in ("base", "large"))]
DEPTHS, DIMS = (1, 1, 2, 1), (8, 12, 16, 20)


def small(num_classes: int = 5, **options: Any) -> ConvNeXt:
    return ConvNeXt(DEPTHS, DIMS, num_classes=num_classes, **options)


def randomised(model: nn.Module) -> nn.Module:
    """Every weight its own: untouched, norms are one, biases zero, and gammas all but absent."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim != 2 and parameter.shape[1:] == (1,) * (parameter.ndim - 1):
                parameter.uniform_(-1, 1)  # biases, norms, and gammas of (C,) or (C, 1, 1)
    return model.eval()


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(state: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[k], other[k]) for k in state)


def assert_same_logits(theirs: nn.Module, ours: nn.Module) -> None:
    """Give both models the same images, in fp32 and in bf16."""
    load_weights(ours, theirs.state_dict())
    ours.eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = theirs(images)
        assert expected.std() > 0.1  # else nearly anything would be close
        torch.testing.assert_close(ours(images), expected, atol=1e-5, rtol=1e-5)
        halves = [m.to(torch.bfloat16)(images.to(torch.bfloat16)) for m in (ours, theirs)]
        torch.testing.assert_close(*halves, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("size", SIZES)
def test_logits_are_torchvisions(size: str) -> None:
    torch.manual_seed(0)
    theirs = randomised(getattr(torchvision.models, f"convnext_{size}")())
    assert_same_logits(theirs, getattr(convnext, f"convnext_{size}")())


@pytest.mark.parametrize("conv_mlp", [False, True])
@pytest.mark.parametrize("size", [*SIZES, pytest.param("xlarge", marks=pytest.mark.slow)])
def test_logits_are_timms(size: str, conv_mlp: bool) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = timm.create_model(f"convnext_{size}", pretrained=False, conv_mlp=conv_mlp)
    assert_same_logits(randomised(theirs), getattr(convnext, f"convnext_{size}")())


@pytest.mark.parametrize("name", ["convnext_tiny_hnf", "convnextv2_tiny", "convnext_large_mlp"])
def test_timms_other_networks_are_refused(name: str) -> None:
    """They differ in what they compute: a last norm before pooling, a GRN, a second layer."""
    timm = pytest.importorskip("timm")
    size = "large" if "large" in name else "tiny"
    with torch.device("meta"):
        theirs = timm.create_model(name, pretrained=False)
        ours = getattr(convnext, f"convnext_{size}")()
    with pytest.raises(WeightsError, match=r"norm_pre|grn|pre_logits"):
        load_weights(ours, theirs.state_dict())


def official_block(name: str, dim: int, gamma: bool) -> dict[str, tuple[int, ...]]:
    return {
        **({f"{name}.gamma": (dim,)} if gamma else {}),
        f"{name}.dwconv.weight": (dim, 1, 7, 7),
        f"{name}.dwconv.bias": (dim,),
        f"{name}.norm.weight": (dim,),
        f"{name}.norm.bias": (dim,),
        f"{name}.pwconv1.weight": (4 * dim, dim),
        f"{name}.pwconv1.bias": (4 * dim,),
        f"{name}.pwconv2.weight": (dim, 4 * dim),
        f"{name}.pwconv2.bias": (dim,),
    }


def official_head(dim: int) -> dict[str, tuple[int, ...]]:
    return {
        "norm.weight": (dim,),
        "norm.bias": (dim,),
        "head.weight": (1000, dim),
        "head.bias": (1000,),
    }


def official_tiny() -> dict[str, tuple[int, ...]]:
    """Names and shapes in convnext_tiny_1k_224_ema.pth, after the authors' models/convnext.py."""
    shapes: dict[str, tuple[int, ...]] = {
        "downsample_layers.0.0.weight": (96, 3, 4, 4),
        "downsample_layers.0.0.bias": (96,),
        "downsample_layers.0.1.weight": (96,),
        "downsample_layers.0.1.bias": (96,),
    }
    for i, (before, after) in enumerate([(96, 192), (192, 384), (384, 768)], start=1):
        shapes[f"downsample_layers.{i}.0.weight"] = (before,)
        shapes[f"downsample_layers.{i}.0.bias"] = (before,)
        shapes[f"downsample_layers.{i}.1.weight"] = (after, before, 2, 2)
        shapes[f"downsample_layers.{i}.1.bias"] = (after,)
    for i, (depth, dim) in enumerate([(3, 96), (3, 192), (9, 384), (3, 768)]):
        for j in range(depth):
            shapes |= official_block(f"stages.{i}.{j}", dim, gamma=True)
    return shapes | official_head(768)


def official_isotropic_small() -> dict[str, tuple[int, ...]]:
    """The same for convnext_iso_small_1k_224_ema.pth, after models/convnext_isotropic.py."""
    shapes: dict[str, tuple[int, ...]] = {"stem.weight": (384, 3, 16, 16), "stem.bias": (384,)}
    for j in range(18):
        shapes |= official_block(f"blocks.{j}", 384, gamma=False)
    return shapes | official_head(384)


@pytest.mark.parametrize(
    ("builder", "shapes"),
    [
        (convnext.convnext_tiny, official_tiny()),
        (convnext.convnext_isotropic_small, official_isotropic_small()),
    ],
)
def test_official_layout_round_trips(
    tmp_path: Path, builder: Callable[..., nn.Module], shapes: dict[str, tuple[int, ...]]
) -> None:
    state = {key: torch.randn(shape) for key, shape in shapes.items()}
    torch.save({"model": state}, tmp_path / "official.pth")
    model = builder(pretrained=tmp_path / "official.pth")
    assert list(model.state_dict()) == list(state)
    assert same(model.state_dict(), state)


def save_safetensors(state: dict[str, Tensor], path: Path) -> None:
    save_file(state, path, metadata={"recipe": "roadmap"})


def prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module._orig_mod.{key}": value for key, value in state.items()}


SAVED: dict[str, Callable[[dict[str, Tensor], Path], None]] = {
    "plain": torch.save,
    "model": lambda state, path: torch.save({"model": state, "epoch": 3}, path),
    "model_ema": lambda state, path: torch.save({"model_ema": state}, path),
    "average first": lambda state, path: torch.save({"model": {}, "model_ema": state}, path),
    "no average": lambda state, path: torch.save({"model": state, "model_ema": None}, path),
    "state_dict": lambda state, path: torch.save({"state_dict": state}, path),
    "arguments": lambda state, path: torch.save(
        {"model": state, "args": argparse.Namespace(lr=4e-3)}, path
    ),
    "legacy": lambda state, path: torch.save(
        {"model": state}, path, _use_new_zipfile_serialization=False
    ),
    "wrapped": lambda state, path: torch.save({"model": prefixed(state)}, path),
    "safetensors": save_safetensors,
}


@pytest.mark.parametrize("kind", SAVED)
def test_every_kind_of_file_loads(tmp_path: Path, kind: str) -> None:
    state = snapshot(randomised(small()))
    path = tmp_path / "weights.bin"  # the suffix tells nothing
    SAVED[kind](state, path)
    model = small()
    load_weights(model, str(path))
    assert same(model.state_dict(), state)


def test_a_roadmap_network_keeps_its_own_names() -> None:
    """Its stem is called as timm's is, yet nothing of it may be translated."""
    step = scaled(roadmap("tiny")["separate_downsampling"].design, width=1 / 8, depth=1 / 3)
    saved, model = randomised(Network(step)), Network(step)
    load_weights(model, saved.state_dict())
    assert same(model.state_dict(), saved.state_dict())


def test_isotropic_with_and_without_layer_scale() -> None:
    scaled = ConvNeXtIsotropic(2, 8, layer_scale_init_value=0.5)
    plain = ConvNeXtIsotropic(2, 8)
    with pytest.raises(WeightsError, match=r"unexpected: blocks\.0\.gamma.*LayerScale"):
        load_weights(plain, scaled.state_dict())
    with pytest.raises(WeightsError, match=r"missing: blocks\.0\.gamma.*LayerScale"):
        load_weights(scaled, plain.state_dict())


@pytest.mark.parametrize("headless", [False, True])
def test_another_number_of_classes_starts_the_head_afresh_and_says_so(
    headless: bool, caplog: pytest.LogCaptureFixture
) -> None:
    state = snapshot(randomised(small(num_classes=7)))
    if headless:
        del state["head.weight"], state["head.bias"]
    model = small(num_classes=5, head_init_scale=0.001)
    model.head.weight.data.fill_(9.0)
    load_weights(model, state)
    assert caplog.messages == ["the state dict has no head for 5 classes: it starts afresh"]
    assert 0 < model.head.weight.std() < 0.0001
    assert not model.head.bias.any()
    loaded = {key: value for key, value in model.state_dict().items() if "head" not in key}
    assert same(loaded, {key: value for key, value in state.items() if "head" not in key})


def test_the_same_number_of_classes_says_nothing(recwarn: pytest.WarningsRecorder) -> None:
    load_weights(small(), small().state_dict())
    assert not recwarn.list


def cut(path: Path, kind: str, size: float) -> Path:
    SAVED[kind](small().state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * size)])
    return path


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.trace),)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


BAD_FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda p: p, "no such file"),
    "directory": (lambda p: p.parent, "no such file"),
    "empty": (lambda p: write(p, b""), "truncated or not a checkpoint"),
    "text": (lambda p: write(p, b"<html>404 Not Found</html>"), "truncated or not a checkpoint"),
    "noise": (lambda p: write(p, bytes(range(256)) * 9), "truncated or not a checkpoint"),
    "json": (lambda p: write(p, b'\x80\0\0\0\0\0\0\0{"a": 1}'), "truncated or not a checkpoint"),
    "cut zip": (lambda p: cut(p, "model", 0.7), "truncated or not a checkpoint"),
    "cut legacy": (lambda p: cut(p, "legacy", 0.7), "truncated or not a checkpoint"),
    "cut safetensors": (lambda p: cut(p, "safetensors", 0.7), "truncated or not a checkpoint"),
    "cut header": (lambda p: cut(p, "safetensors", 0.01), "truncated or not a checkpoint"),
    "a number": (lambda p: save(p, 3), "holds no weights"),
    "nothing": (lambda p: save(p, {}), "holds no weights"),
    "an optimiser": (lambda p: save(p, {"state": {}, "param_groups": []}), "holds no weights"),
    "a numbered state": (lambda p: save(p, {0: torch.ones(2)}), "holds no weights"),
    "a whole model": (lambda p: save(p, small()), "might be code and was not run"),
    "another network": (
        lambda p: save(p, torchvision.models.resnet18().state_dict()),
        "does not fit the model; missing: .* more; unexpected: conv1.weight, .* more$",
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_one_line_and_the_model_stays(tmp_path: Path, kind: str) -> None:
    make, message = BAD_FILES[kind]
    path = make(tmp_path / "weights.pth")
    model = small()
    before = snapshot(model)
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(model, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert same(model.state_dict(), before)


def test_a_file_one_may_not_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = save(tmp_path / "weights.pth", small().state_dict())
    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(WeightsError, match=r"weights.pth may not be read: permission denied$"):
        load_weights(small(), path)


@pytest.mark.parametrize("dump", [torch.save, lambda content, p: write(p, pickle.dumps(content))])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_checkpoint_never_runs(tmp_path: Path, dump: Callable[..., object]) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "it ran"
    dump({"model": small().state_dict(), "args": Evil(trace)}, path)
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        load_weights(small(), path)
    assert not trace.exists()
    torch.load(path, weights_only=False) if dump is torch.save else pickle.loads(path.read_bytes())
    assert trace.exists()  # the attempt was a real one


def renamed(state: dict[str, Tensor]) -> None:
    state["stages.2.1.pwconv9.bias"] = state.pop("stages.2.1.pwconv1.bias")


def reshaped(state: dict[str, Tensor]) -> None:
    state["stages.2.1.dwconv.weight"] = torch.ones(16, 1, 3, 3)


def wider(state: dict[str, Tensor]) -> None:
    state["head.weight"] = torch.ones(7, 24)
    state["head.bias"] = torch.ones(7)


def headed(state: dict[str, Tensor]) -> None:
    del state["head.bias"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (renamed, r"missing: stages\.2\.1\.pwconv1\.bias; unexpected: stages\.2\.1\.pwconv9\.bias"),
        (reshaped, r"stages\.2\.1\.dwconv\.weight \(16, 1, 3, 3\) instead of \(16, 1, 7, 7\)"),
        (wider, r"head\.weight \(7, 24\) instead of \(5, 20\).*\(7,\) instead of \(5,\)$"),
        (headed, r"missing: head\.bias$"),
    ],
)
def test_one_wrong_key_is_named_and_the_model_stays(
    spoil: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    state = snapshot(randomised(small()))
    spoil(state)
    model = small()
    before = snapshot(model)
    with pytest.raises(WeightsError, match=message):
        load_weights(model, state)
    assert same(model.state_dict(), before)


def test_a_missing_official_file_comes_with_its_address(tmp_path: Path) -> None:
    for address in official_addresses():
        with pytest.raises(WeightsError, match=f"download it from {address}$"):
            load_weights(small(), tmp_path / address.rpartition("/")[2])
    tiny = "https://dl.fbaipublicfiles.com/convnext/convnext_tiny_1k_224_ema.pth"
    assert tiny in official_addresses()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torchvision's downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def test_torchvisions_name_loads_torchvisions_weights(hub: Path) -> None:
    weights = torchvision.models.ConvNeXt_Tiny_Weights.IMAGENET1K_V1
    theirs = randomised(torchvision.models.convnext_tiny())
    hub.mkdir(parents=True)
    torch.save(theirs.state_dict(), hub / weights.url.rpartition("/")[2])
    ours = convnext.convnext_tiny(pretrained="IMAGENET1K_V1")
    assert torch.equal(ours.head.weight, theirs.classifier[2].weight)
    assert torch.equal(ours.stages[0][0].gamma, theirs.features[1][0].layer_scale.flatten())


def test_a_download_with_another_hash_is_refused(
    hub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    forged = save(tmp_path / "forged.pth", torchvision.models.convnext_tiny().state_dict())
    monkeypatch.setattr("torch.hub.urlopen", lambda *_: urllib.request.urlopen(forged.as_uri()))
    with pytest.raises(WeightsError, match=r"invalid hash.*download https://\S+ by hand"):
        convnext.convnext_tiny(pretrained="IMAGENET1K_V1")
    assert not list(hub.glob("*.pth"))


def test_no_network_is_one_line(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    with pytest.raises(WeightsError, match=r"Tiny.*no route to host.*give its path"):
        convnext.convnext_tiny(pretrained="IMAGENET1K_V1")


@pytest.mark.parametrize(
    ("builder", "name"),
    [("convnext_xlarge", "IMAGENET1K_V1"), ("convnext_tiny", "IMAGENET1K_V9")],
)
def test_a_name_torchvision_lacks_is_one_line(builder: str, name: str) -> None:
    with (
        torch.device("meta"),
        pytest.raises(WeightsError, match=f"{name}: no such file; .*IMAGENET1K_V1"),
    ):
        getattr(convnext, builder)(pretrained=name)
