"""Other people's weights: loaded exactly, or refused in one line with the model untouched."""

import argparse
import pickle
import re
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from test_checkpoint import Bomb
from timm.models.convnext import checkpoint_filter_fn
from torch import Tensor, nn

from convnext_steps.errors import WeightsError
from convnext_steps.models import convnext
from convnext_steps.models.convnext import ConvNeXt, ConvNeXtIsotropic
from convnext_steps.models.design import scaled
from convnext_steps.models.network import Network
from convnext_steps.models.roadmap import roadmap
from convnext_steps.models.weights import load_weights, official_addresses

SIZES = ["tiny", "small"]
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
@pytest.mark.parametrize("size", SIZES)
def test_logits_are_timms(size: str, conv_mlp: bool) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(f"convnext_{size}", pretrained=False, conv_mlp=conv_mlp)
    ours = getattr(convnext, f"convnext_{size}")()
    assert_same_logits(randomised(theirs), ours)
    official = ours.state_dict()  # as timm reads the authors' files
    assert same(checkpoint_filter_fn(official, theirs), theirs.state_dict())


@pytest.mark.parametrize("name", ["convnext_tiny_hnf", "convnextv2_tiny", "convnext_large_mlp"])
def test_timms_other_networks_are_refused(name: str) -> None:
    """They differ in what they compute: a last norm before pooling, a GRN, a second layer."""
    size = "large" if "large" in name else "tiny"
    with torch.device("meta"):
        theirs = timm.create_model(name, pretrained=False)
        ours = getattr(convnext, f"convnext_{size}")()
    with pytest.raises(WeightsError, match=r"norm_pre|grn|pre_logits"):
        load_weights(ours, theirs.state_dict())


def prefixed(state: dict[str, Tensor], prefix: str = "module._orig_mod.") -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


def saved(**entries: Any) -> Callable[[dict[str, Tensor], Path], None]:
    """A file with these entries; "state" stands for the weights."""

    def save_all(state: dict[str, Tensor], path: Path) -> None:
        torch.save({k: state if isinstance(v, str) else v for k, v in entries.items()}, path)

    return save_all


def with_prefix(prefix: str, **beside: Tensor) -> Callable[[dict[str, Tensor], Path], None]:
    return lambda state, path: torch.save(prefixed(state, prefix) | beside, path)


def averaged(state: dict[str, Tensor], path: Path) -> None:
    """As torchvision's references/classification/train.py writes it."""
    model = small()
    model.load_state_dict(state)
    average = torch.optim.swa_utils.AveragedModel(nn.DataParallel(model))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer),
            torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 4]),
        ],
        milestones=[2],
    )
    arguments = argparse.Namespace(lr=0.1, device=torch.device("cpu"), output=Path("out"))
    checkpoint = {"model": model.state_dict(), "model_ema": average.state_dict()}
    checkpoint |= {"optimizer": optimizer.state_dict(), "lr_scheduler": schedule.state_dict()}
    torch.save(checkpoint | {"epoch": 3, "args": arguments}, path)


def inner_wrapped(state: dict[str, Tensor], path: Path) -> None:
    """A model of which a part was compiled."""
    torch.save({key.replace("stages.2.", "stages._orig_mod.2."): state[key] for key in state}, path)


SAVED: dict[str, Callable[[dict[str, Tensor], Path], None]] = {
    "plain": torch.save,
    "model": saved(model="state", epoch=3),
    "model_ema": saved(model_ema="state"),
    "average first": saved(model={}, model_ema="state"),
    "no average": saved(model="state", model_ema=None),
    "state_dict": saved(state_dict="state"),
    "net": saved(net="state", acc=71.2),
    "an unknown entry": saved(weights="state"),
    "two levels": lambda state, path: torch.save({"checkpoint": {"teacher": state}}, path),
    "official": saved(model="state", args=argparse.Namespace(lr=4e-3), scaler={"scale": 1.0}),
    "timm": saved(
        epoch=3,
        state_dict="state",
        metric=np.float64(71.2),
        args=argparse.Namespace(mean=(0.5,), workers=np.int64(4)),
        version=2,
    ),
    "torchvision": averaged,
    "arrays": saved(model="state", curve=np.arange(3.0), best=np.float32(2), ok=np.bool_(True)),
    "legacy": lambda state, path: torch.save(
        {"model": state, "metric": np.float64(3)}, path, _use_new_zipfile_serialization=False
    ),
    "wrapped": lambda state, path: torch.save({"model": prefixed(state)}, path),
    "a compiled part": inner_wrapped,
    "Lightning": lambda state, path: torch.save(
        {"state_dict": prefixed(state, "model.") | {"loss.weight": torch.ones(5)}}, path
    ),
    "a student and its head": with_prefix(
        "student.backbone.", **{"head.mlp.0.bias": torch.ones(3)}
    ),
    "four prefixes": with_prefix("module._orig_mod.model.backbone."),
    "safetensors": lambda state, path: save_file(state, path, metadata={"recipe": "roadmap"}),
}


@pytest.mark.parametrize("kind", SAVED)
def test_every_kind_of_file_loads(tmp_path: Path, kind: str) -> None:
    state = snapshot(randomised(small()))
    path = tmp_path / "weights.bin"  # the suffix tells nothing
    SAVED[kind](state, path)
    model = small()
    load_weights(model, str(path))
    assert same(model.state_dict(), state)


def test_numpys_numbers_load_under_the_names_of_numpy_1_too(tmp_path: Path) -> None:
    state = {"head.bias": torch.ones(1)}
    names = {b"numpy._core.multiarray": b"numpy.core.multiarray"}
    names |= {value: key for key, value in names.items()}
    torch.save({"model": state, "metric": np.float64(3)}, tmp_path / "new.pth")
    with (
        zipfile.ZipFile(tmp_path / "new.pth") as new,
        zipfile.ZipFile(tmp_path / "old.pth", "w") as old,
    ):
        for name in new.namelist():
            content = new.read(name)
            if name.endswith("data.pkl"):
                (found,) = [one for one in names if one in content]
                content = content.replace(found, names[found])
            old.writestr(name, content)
    model = nn.ModuleDict({"head": nn.Linear(1, 1)})
    with pytest.raises(WeightsError, match=r"missing: head\.weight"):  # it was read
        load_weights(model, tmp_path / "old.pth")


def test_of_several_weights_a_line_says_which_was_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain, average = (snapshot(randomised(small())) for _ in range(2))
    path, model = tmp_path / "checkpoint.pth", small()
    torch.save({"model": plain, "model_ema": prefixed(average, "module.")}, path)
    load_weights(model, path)
    assert same(model.state_dict(), average)
    (message,) = caplog.messages
    assert message.startswith(f"{path} has several weights: model_ema.module is taken; ")
    assert "entry='model'" in message
    load_weights(model, path, entry="model")
    assert same(model.state_dict(), plain)
    with pytest.raises(WeightsError, match="holds no 'net' with weights"):
        load_weights(model, path, entry="net")

    torch.save(prefixed(plain, "encoder_q.") | prefixed(average, "encoder_k."), path)
    load_weights(model, path, entry="encoder_k")
    assert same(model.state_dict(), average)


def mmpretrain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names after mmpretrain/models/backbones/convnext.py and its LinearClsHead."""
    theirs = {}
    for key, value in state.items():
        key = key.replace(".dwconv.", ".depthwise_conv.").replace(".pwconv", ".pointwise_conv")
        key = re.sub("^norm", "norm3", key)
        theirs[f"head.fc.{key[5:]}" if key.startswith("head.") else f"backbone.{key}"] = value
    return theirs


def test_mmpretrains_files_load_and_a_backbone_alone_starts_norm_and_head_afresh(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = snapshot(randomised(small()))
    model = small()
    load_weights(model, {"state_dict": mmpretrain(state), "meta": {"epoch": 3}})
    assert same(model.state_dict(), state)
    assert not caplog.messages

    backbone = {key: value for key, value in mmpretrain(state).items() if "norm3" not in key}
    backbone = {key: value for key, value in backbone.items() if key.startswith("backbone")}
    load_weights(model, backbone)
    assert caplog.messages == [
        "the state dict has no last norm and no head for 5 classes: they start afresh"
    ]
    fresh = {"norm.weight": torch.ones(20), "norm.bias": torch.zeros(20)}
    loaded = {k: v for k, v in model.state_dict().items() if not k.startswith("head.")}
    assert same(loaded, {k: (state | fresh)[k] for k in loaded})
    assert not torch.equal(model.head.weight, state["head.weight"])


def test_a_detectors_backbone_loads_without_the_norms_of_its_outputs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As the official object_detection/mmdet/models/backbones/convnext.py has them."""
    state = snapshot(randomised(small()))
    backbone = {f"backbone.{k}": v for k, v in state.items() if not k.startswith(("norm", "head"))}
    norms = {f"backbone.norm{i}.weight": torch.ones(4 * i + 8) for i in range(4)}
    model = small()
    load_weights(model, {"state_dict": backbone | norms | {"neck.conv.bias": torch.ones(3)}})
    loaded = {k: v for k, v in model.state_dict().items() if not k.startswith(("norm", "head"))}
    assert same(loaded, {k: state[k] for k in loaded})
    assert "no place for norm0.weight, norm1.weight" in caplog.messages[0]
    assert "no last norm and no head for 5 classes" in caplog.messages[1]


def test_transformers_files_load(caplog: pytest.LogCaptureFixture) -> None:
    """Names after transformers/models/convnext/modeling_convnext.py."""
    renamings = [
        (r"^downsample_layers\.0\.0\.", "embeddings.patch_embeddings."),
        (r"^downsample_layers\.0\.1\.", "embeddings.layernorm."),
        (r"^downsample_layers\.(\d)\.", r"encoder.stages.\1.downsampling_layer."),
        (r"^stages\.(\d)\.(\d)\.", r"encoder.stages.\1.layers.\2."),
        (r"\.gamma$", ".layer_scale_parameter"),
        (r"\.norm\.|^norm\.", lambda found: found[0].replace("norm", "layernorm")),
        (r"^head\.", "classifier."),
    ]
    state = snapshot(randomised(small()))
    theirs = {}
    for key, value in state.items():
        for ours, name in renamings:
            key = re.sub(ours, name, key)
        theirs[key if key.startswith("classifier") else f"convnext.{key}"] = value
    assert "convnext.encoder.stages.2.layers.1.layernorm.weight" in theirs
    model = small()
    load_weights(model, theirs)
    assert same(model.state_dict(), state)
    assert not caplog.messages


def test_without_classes_a_network_gives_timms_features() -> None:
    theirs = randomised(timm.create_model("convnext_tiny", num_classes=5))
    ours = convnext.convnext_tiny(num_classes=0)
    load_weights(ours, theirs.state_dict())
    theirs.reset_classifier(0)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images), theirs(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("step", ["resnet", "separate_downsampling"])
def test_without_classes_a_step_gives_what_its_classifier_takes(step: str) -> None:
    design = scaled(roadmap()[step].design, width=1 / 8, depth=1 / 3)
    whole, bare = Network(design, num_classes=5).eval(), Network(design, num_classes=0).eval()
    load_weights(bare, whole.state_dict())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(whole.head[-1](bare(images)), whole(images))


def test_a_compiled_models_weights_are_its_models() -> None:
    saved, model = randomised(small()), small()
    load_weights(torch.compile(model), saved.state_dict())
    assert same(model.state_dict(), saved.state_dict())
    load_weights(model, torch.compile(saved).state_dict())


@pytest.mark.parametrize(
    ("pretrained", "message"),
    [
        (True, r"^pretrained=True; give the path .* IMAGENET1K_V1 \(None: no weights\)$"),
        (False, "^pretrained=False; give the path"),
        (1, "^pretrained=1; give the path"),
        ({"head.bias": 1}, "^pretrained={'head.bias': 1}; give the path"),
        (torchvision.models.ConvNeXt_Small_Weights.DEFAULT, "are the weights of another model"),
        ("https://x.org/tiny.pth", r"^https://x\.org/tiny\.pth is an address: download it, and"),
        ("~/no such file.pth", "^~/no such file.pth: no such file; give the path"),
        ("IMAGENET1K_V9", "^IMAGENET1K_V9: no such file; .*IMAGENET1K_V1"),
    ],
)
def test_what_is_no_path_is_one_line(pretrained: Any, message: str) -> None:
    with torch.device("meta"), pytest.raises(WeightsError, match=message) as caught:
        convnext.convnext_tiny(pretrained=pretrained)
    assert "\n" not in str(caught.value)


def test_a_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    state = snapshot(randomised(small()))
    torch.save(state, tmp_path / "weights.pth")
    model = small()
    load_weights(model, "~/weights.pth")
    assert same(model.state_dict(), state)


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


@pytest.mark.parametrize("classes", [7, 0])
def test_a_steps_head_starts_afresh_too(classes: int, caplog: pytest.LogCaptureFixture) -> None:
    step = scaled(roadmap("tiny")["separate_downsampling"].design, width=1 / 8, depth=1 / 3)
    state, model = Network(step, num_classes=classes).state_dict(), Network(step, num_classes=5)
    model.head[-1].weight.data.fill_(9.0)
    load_weights(model, state)
    assert caplog.messages == ["the state dict has no head for 5 classes: it starts afresh"]
    assert model.head[-1].weight.abs().max() < 1
    assert same(model.stem.state_dict(), {k[5:]: v for k, v in state.items() if "stem" in k})


def cut(path: Path, kind: str, size: float) -> Path:
    SAVED[kind](small().state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * size)])
    return path


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def scripted(path: Path) -> Path:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
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
    "a whole model": (lambda p: save(p, small()), "possibly code, which was not run"),
    "TorchScript": (scripted, "is a TorchScript archive, which is code"),
    "int8": (
        lambda p: save(p, small().state_dict() | {"head.bias": torch.ones(5, dtype=torch.int8)}),
        "does not fit the model; other types: head.bias int8 strided$",
    ),
    "sparse": (
        lambda p: save(p, small().state_dict() | {"norm.bias": torch.zeros(20).to_sparse()}),
        "does not fit the model; other types: norm.bias float32 sparse_coo$",
    ),
    "another network": (
        lambda p: save(p, torchvision.models.resnet18().state_dict()),
        "does not fit the model; missing: .* more; unexpected: conv1.weight, .* more$",
    ),
}


@pytest.mark.filterwarnings("ignore:.*(torch.jit|TorchScript)")
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
    with pytest.raises(WeightsError, match=r"weights.pth cannot be read: permission denied$"):
        load_weights(small(), path)


@pytest.mark.parametrize("dump", [torch.save, lambda content, p: write(p, pickle.dumps(content))])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_checkpoint_never_runs(tmp_path: Path, dump: Callable[..., object]) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "it ran"
    dump({"model": small().state_dict(), "args": Bomb(trace)}, path)
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        load_weights(small(), path)
    assert not trace.exists()
    torch.load(path, weights_only=False) if dump is torch.save else pickle.loads(path.read_bytes())
    assert trace.exists()  # the attempt was a real one


ONES = {"stages.2.1.dwconv.weight": torch.ones(16, 1, 3, 3)}
WIDER = {"head.weight": torch.ones(7, 24), "head.bias": torch.ones(7)}


@pytest.mark.parametrize(
    ("lost", "new", "message"),
    [
        ("stages.2.1.pwconv1.bias", {"x": torch.ones(64)}, r"1\.pwconv1\.bias; unexpected: x$"),
        ("", ONES, r"stages\.2\.1\.dwconv\.weight \(16, 1, 3, 3\) instead of \(16, 1, 7, 7\)"),
        ("", WIDER, r"head\.weight \(7, 24\) instead of \(5, 20\).*\(7,\) instead of \(5,\)$"),
        ("head.bias", {}, r"missing: head\.bias$"),
    ],
)
def test_one_wrong_key_is_named_and_the_model_stays(
    lost: str, new: dict[str, Tensor], message: str
) -> None:
    state = snapshot(randomised(small()))
    state.pop(lost, None)
    state |= new
    model = small()
    before = snapshot(model)
    with pytest.raises(WeightsError, match=message):
        load_weights(model, state)
    assert same(model.state_dict(), before)


@pytest.mark.parametrize(
    "name", ["IMAGENET1K_V1", torchvision.models.ConvNeXt_Tiny_Weights.IMAGENET1K_V1], ids=str
)
def test_torchvisions_weights_come_with_a_network(name: Any) -> None:
    with pytest.raises(WeightsError, match=r"convnext_tiny\(pretrained='IMAGENET1K_V1'\)"):
        load_weights(small(), name)


def test_a_missing_official_file_comes_with_its_address(tmp_path: Path) -> None:
    for address in official_addresses():
        with pytest.raises(WeightsError, match=f"download it from {address}$"):
            load_weights(small(), tmp_path / address.rpartition("/")[2])


def test_the_addresses_are_timms_and_those_that_timm_lacks() -> None:
    start = "https://dl.fbaipublicfiles.com/convnext/convnext_"
    known = (timm.get_pretrained_cfg(name).url or "" for name in timm.list_pretrained("convnext*"))
    expected = {address for address in known if address.startswith(start)}
    sizes = ("iso_small_1k_224_ema", "iso_base_1k_224_ema", "iso_large_1k_224_ema")
    more = (*sizes, "base_1k_384", "large_1k_384")
    assert set(official_addresses()) == expected | {f"{start}{name}.pth" for name in more}


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


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_no_network_is_one_line(hub: Path, monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    def unreachable(*_: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    message = f"{size.title()}.*no route to host.*give its path"
    with torch.device("meta"), pytest.raises(WeightsError, match=message):
        getattr(convnext, f"convnext_{size}")(pretrained="IMAGENET1K_V1")
