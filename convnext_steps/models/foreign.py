"""Files as other trainers write them: what they hold, where their weights are, and their names."""

import argparse
import pathlib
import re
import types
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

# Entries that hold weights, the first that fits is taken: published numbers are of averages.
ENTRIES = ("model_ema", "state_dict_ema", "ema", "teacher", "model", "state_dict", "net")

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
MMPRETRAIN = {
    ".depthwise_conv.": ".dwconv.",
    ".pointwise_conv": ".pwconv",
    "norm3.": "norm.",
    "head.fc.": "head.",
}
TRANSFORMERS = {  # Hugging Face's
    "embeddings.patch_embeddings.": "downsample_layers.0.0.",
    "embeddings.layernorm.": "downsample_layers.0.1.",
    **{f"encoder.stages.{i}.downsampling_layer.": f"downsample_layers.{i}." for i in (1, 2, 3)},
    "encoder.stages.": "stages.",
    ".layers.": ".",
    ".layer_scale_parameter": ".gamma",
    "layernorm.": "norm.",
    "classifier.": "head.",
}
FOREIGN = {  # recognised by the end of one key
    "features.0.0.weight": TORCHVISION,
    "stem.0.weight": TIMM,
    "stages.0.0.depthwise_conv.weight": MMPRETRAIN,
    "embeddings.patch_embeddings.weight": TRANSFORMERS,
}
# Wrappers that may stand before any part of a name, and are never a layer's own.
WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
DETECTORS_NORM = re.compile(r"norm[0-3]\.")  # of a stage's output, in a detector's backbone
COUNTERS = {"n_averaged"}  # torch's AveragedModel has it beside the weights


def plain_types() -> list[Any]:
    """What other trainers save beside weights: plain data, of which nothing executes code.

    For `torch.serialization.safe_globals`: command-line arguments, paths, and NumPy's numbers and
    arrays, which NumPy 1 and 2 pickle under different names.
    """
    numbers = {type(np.dtype(code)) for code in np.typecodes["AllInteger"] + "?efdgFDGSU"}
    rebuild = {"scalar": np.float64(0), "_reconstruct": np.empty(0)}
    functions = [
        (value.__reduce__()[0], f"numpy.{core}.multiarray.{name}")
        for name, value in rebuild.items()
        for core in ("core", "_core")
    ]
    paths = [
        (getattr(pathlib, f"Pure{system}Path"), f"{module}.{system}Path")
        for system in ("Posix", "Windows")
        for module in ("pathlib", "pathlib._local")
    ]
    plain = [argparse.Namespace, types.SimpleNamespace, np.dtype, np.ndarray]
    return [*plain, *numbers, *functions, *paths]


@dataclass(frozen=True)
class Found:
    """Weights in a checkpoint, in our layout."""

    place: str  # the entries and the prefix that lead to them, such as "teacher.backbone"
    state: dict[str, Tensor]
    left_out: list[str]  # names outside the prefix that the model has not
    fits: bool  # whether it has at least half of the model's names


def find_weights(checkpoint: Mapping[str, Any], own: Mapping[str, Tensor]) -> list[Found]:
    """Everything in a checkpoint that holds tensors by name, the best for a model first.

    Args:
        checkpoint: entries of any depth, names with any prefixes, of any known library.
        own: the model's state.
    """
    found = [
        _below(entry, prefix, state, own)
        for entry, tensors in _entries(checkpoint)
        for state in [_in_our_layout(tensors, own)]
        for prefix in _prefixes(state, own)
    ]
    return sorted(found, key=lambda one: (not one.fits, _rank(one.place), -len(one.state)))


def _entries(checkpoint: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The tensors by name of a checkpoint and of each of its entries, with the entry's path."""
    named = {key: value for key, value in checkpoint.items() if isinstance(key, str)}
    tensors = {key: value for key, value in named.items() if isinstance(value, Tensor)}
    if tensors:
        yield path, {WRAPPERS.sub("", key): value for key, value in tensors.items()}
    for key, value in named.items():
        if isinstance(value, Mapping):
            yield from _entries(value, f"{path}.{key}".lstrip("."))


def _prefixes(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """The prefixes under which half of the model's names are found; else the one with the most."""
    counts: Counter[str] = Counter()
    for key in state:
        parts = key.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in own:
                counts[".".join([*parts[:start], ""]) if start else ""] += 1
    most = [prefix for prefix, count in counts.items() if 2 * count >= len(own)]
    return most or [""]


def _below(
    entry: str, prefix: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> Found:
    """What is below a prefix; names outside it stay if the model has them, such as a head's."""
    below = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    detectors = [key for key in below if DETECTORS_NORM.match(key) and key not in own]
    others = {key: below.pop(key) for key in detectors}
    others |= {k: v for k, v in state.items() if not k.startswith(prefix)}
    kept = {k: v for k, v in others.items() if k in own and k not in below}
    return Found(
        ".".join(filter(None, [entry, prefix.rstrip(".")])),
        below | kept,
        [key for key in others if key not in kept and key not in COUNTERS],
        2 * sum(key in own for key in below) >= len(own),
    )


def _rank(place: str) -> int:
    names = place.split(".")
    return min((ENTRIES.index(name) for name in names if name in ENTRIES), default=len(ENTRIES))


def _in_our_layout(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate another library's names and shapes into ours."""
    for mark, names in FOREIGN.items():
        if mark not in own and any(f".{key}".endswith(f".{mark}") for key in state):
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
