"""Load trained weights: the authors', torchvision's, timm's, and this library's own.

No code in a file is ever executed, and a model is changed only after everything is checked.
"""

import argparse
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from convnext_steps.errors import WeightsError
from convnext_steps.text import few

LOG = logging.getLogger("convnext_steps")

Model = TypeVar("Model", bound=nn.Module)

# The authors' files, for download by hand: `1k` is trained on ImageNet-1K, `22k` on ImageNet-22K
# (num_classes=21841), `22k_1k` first on 22K, then on 1K; the last number is the resolution.
OFFICIAL_ADDRESS = "https://dl.fbaipublicfiles.com/convnext/convnext_{size}_{training}.pth"
OFFICIAL_FILES = {
    "tiny": ("1k_224_ema", "22k_224", "22k_1k_224", "22k_1k_384"),
    "small": ("1k_224_ema", "22k_224", "22k_1k_224", "22k_1k_384"),
    "base": ("1k_224_ema", "1k_384", "22k_224", "22k_1k_224", "22k_1k_384"),
    "large": ("1k_224_ema", "1k_384", "22k_224", "22k_1k_224", "22k_1k_384"),
    "xlarge": ("22k_224", "22k_1k_224_ema", "22k_1k_384_ema"),
    "iso_small": ("1k_224_ema",),
    "iso_base": ("1k_224_ema",),
    "iso_large": ("1k_224_ema",),
}

# Where a checkpoint keeps its weights; averaged ones first: the published numbers are theirs.
ENTRIES = ("model_ema", "state_dict_ema", "model", "state_dict")

# The names of other libraries and ours, replaced in this order.
TORCHVISION = {
    **{f"features.{2 * i}.": f"downsample_layers.{i}." for i in range(4)},
    **{f"features.{2 * i + 1}.": f"stages.{i}." for i in range(4)},
    ".block.0.": ".dwconv.",
    ".block.2.": ".norm.",
    ".block.3.": ".pwconv1.",
    ".block.5.": ".pwconv2.",
    ".layer_scale": ".gamma",
    "classifier.0.": "norm.",
    "classifier.2.": "head.",
}
TIMM = {
    "stem.": "downsample_layers.0.",
    **{f"stages.{i}.downsample.": f"downsample_layers.{i}." for i in (1, 2, 3)},
    ".blocks.": ".",
    ".conv_dw.": ".dwconv.",
    ".mlp.fc": ".pwconv",
    "head.norm.": "norm.",
    "head.fc.": "head.",
}
FOREIGN = {"features.0.0.weight": TORCHVISION, "stem.0.weight": TIMM}  # recognised by one key
HEAD = ("head.weight", "head.bias")


def official_addresses() -> list[str]:
    """The addresses of the authors' files."""
    return [
        OFFICIAL_ADDRESS.format(size=size, training=training)
        for size, trainings in OFFICIAL_FILES.items()
        for training in trainings
    ]


def load_weights(model: nn.Module, source: str | Path | Mapping[str, Any]) -> None:
    """Load weights into a model, from a file or a state dict of any of the known kinds.

    A head for another number of classes is left out: the model's own is drawn afresh, and a
    warning says so.

    Args:
        model: a network of this library; other networks take weights with their own names only.
        source: a path (safetensors or what `torch.save` writes), or a state dict.

    Raises:
        WeightsError: the file is missing or damaged, holds more than weights, or does not fit.
    """
    if isinstance(source, Mapping):
        _load(model, source, "the state dict")
    else:
        _load(model, _read(Path(source)), str(source))


def load_pretrained(
    model: Model, pretrained: str | Path | None, published: type[WeightsEnum] | None = None
) -> Model:
    """The model with the weights of a file, or of an entry of torchvision's enum."""
    if published is not None and pretrained in published.__members__:
        weights = published[str(pretrained)]
        _load(model, _download(weights), str(weights))
    elif pretrained is not None:
        load_weights(model, pretrained)
    return model


def _load(model: nn.Module, checkpoint: Mapping[str, Any], name: str) -> None:
    """Check everything before changing the model."""
    own = model.state_dict()
    state = _in_our_layout(_find_weights(checkpoint, name), own)
    reset_head = getattr(model, "reset_head", None)
    new_head = reset_head is not None and _has_other_head(state, own)
    left_out = HEAD if new_head else ()
    state = {key: value for key, value in state.items() if key not in left_out}
    _check_match(state, {key: own[key] for key in own if key not in left_out}, name)
    if reset_head is not None and new_head:
        classes = len(own["head.weight"])
        LOG.warning("%s has no head for %s classes: it starts afresh", name, classes)
        reset_head()
    model.load_state_dict(state, strict=not new_head)


def _read(path: Path) -> Mapping[str, Any]:
    """Read a file of either format, whatever its name."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; {_where_to_get(path)}")
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"  # eight bytes of length, then JSON
        if is_safetensors:
            return load_file(path)
        # The authors' and timm's training scripts save their arguments, as plain data, too.
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise WeightsError(
                f"{path} holds more than weights, possibly code, which was not run; "
                "if you trust the file, save its state_dict alone and load that"
            ) from None
        raise _unreadable(path) from None
    except PermissionError:
        raise WeightsError(f"{path} cannot be read: permission denied") from None
    except Exception:  # foreign bytes can fail in many ways, KeyError among them
        raise _unreadable(path) from None
    return checkpoint if isinstance(checkpoint, Mapping) else {}


def _unreadable(path: Path) -> WeightsError:
    return WeightsError(f"{path} is truncated or not a checkpoint; download or save it again")


def _where_to_get(path: Path) -> str:
    for address in official_addresses():
        if address.endswith(f"/{path.name}"):
            return f"download it from {address}"
    return (
        "give the path of a checkpoint or, for tiny, small, base and large, the name of "
        "torchvision's weights, IMAGENET1K_V1"
    )


def _download(weights: WeightsEnum) -> Mapping[str, Any]:
    try:
        state: Mapping[str, Any] = weights.get_state_dict(
            check_hash=True, weights_only=True, map_location="cpu"
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{weights}: {reason}; download {weights.url} by hand and give the file's path"
        ) from None
    return state


def _find_weights(checkpoint: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """Take the weights out of a checkpoint."""
    entries = [checkpoint[e] for e in ENTRIES if isinstance(checkpoint.get(e), Mapping)]
    state = entries[0] if entries else checkpoint
    if not state or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise WeightsError(
            f"{name} holds no weights: expected tensors by name, alone or under one of {ENTRIES}"
        )
    # DistributedDataParallel and torch.compile add these prefixes.
    return {k.removeprefix("module.").removeprefix("_orig_mod."): v for k, v in state.items()}


def _in_our_layout(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate another library's names and shapes into ours."""
    for mark, names in FOREIGN.items():
        if mark in state and mark not in own:
            return dict(_translate(key, value, names) for key, value in state.items())
    return state


def _translate(key: str, value: Tensor, names: Mapping[str, str]) -> tuple[str, Tensor]:
    for theirs, ours in names.items():
        key = key.replace(theirs, ours)
    if key.endswith(".gamma"):
        value = value.flatten()  # (C, 1, 1) -> (C,)
    elif ".pwconv" in key and value.ndim == 4:
        value = value.flatten(1)  # a 1x1 convolution as a linear layer, (O, I, 1, 1) -> (O, I)
    return key, value


def _has_other_head(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    """Whether the head is missing, or differs from ours in the number of classes only."""
    if not any(key in state for key in HEAD):
        return True
    if not all(key in state for key in HEAD):
        return False
    (rows, *width), (own_rows, *own_width) = state["head.weight"].shape, own["head.weight"].shape
    return rows != own_rows and width == own_width and state["head.bias"].shape == (rows,)


def _check_match(state: Mapping[str, Tensor], own: Mapping[str, Tensor], name: str) -> None:
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    problems = {"missing": missing, "unexpected": unexpected, "other shapes": shapes}
    found = "; ".join(f"{kind}: {few(keys)}" for kind, keys in problems.items() if keys)
    if found:
        hint = ""
        if all(key.endswith(".gamma") for key in missing + unexpected) and not shapes:
            hint = " (gamma is LayerScale: layer_scale_init_value is 0 for none, else 1e-6)"
        raise WeightsError(f"{name} does not fit the model; {found}{hint}")
