"""Load trained weights: the authors', torchvision's, timm's, and this library's own.

No code in a file is ever executed, and a model is changed only after everything is checked.
"""

import logging
import pickle
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from convnext_steps.errors import WeightsError
from convnext_steps.files import expanded
from convnext_steps.models.foreign import ENTRIES, Found, find_weights, plain_types
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

UNREADABLE = {  # what an error says of a file, and what to say; the first that fits
    "GLOBAL": "holds more than weights, possibly code, which was not run; "
    "if you trust the file, save its state_dict alone and load that",
    "TorchScript": "is a TorchScript archive, which is code; save the state_dict of the model "
    "that it was made from, and load that",
    "": "is truncated or not a checkpoint; download or save it again",
}
GIVE = (
    "give the path of a checkpoint or, for tiny, small, base and large, the name of "
    "torchvision's weights, IMAGENET1K_V1"
)
NORM = ("norm.weight", "norm.bias")  # the last


def official_addresses() -> list[str]:
    """The addresses of the authors' files."""
    return [
        OFFICIAL_ADDRESS.format(size=size, training=training)
        for size, trainings in OFFICIAL_FILES.items()
        for training in trainings
    ]


def load_weights(
    model: nn.Module, source: str | Path | Mapping[str, Any], *, entry: str | None = None
) -> None:
    """Load weights into a model, from a file or a state dict of any of the known kinds.

    A head for another number of classes is left out: the model's own is initialised anew, and a
    warning says so. A model without a classifier (`num_classes=0`) takes no head.

    Args:
        model: a network of this library; other networks take weights with their own names only,
            and with their own head.
        source: a path (safetensors or what `torch.save` writes), or a state dict.
        entry: of several weights in one file, those to take, such as "model" or "model_ema".

    Raises:
        WeightsError: the file is missing or damaged, holds more than weights, or does not fit.
    """
    if isinstance(source, WeightsEnum):
        source = source.name
    if isinstance(source, Mapping):
        _load(model, source, "the state dict", entry)
    else:
        _load(model, _read(source), str(source), entry)


def load_pretrained(
    model: Model, pretrained: Any, published: type[WeightsEnum] | None = None
) -> Model:
    """The model with the weights of a file, or of an entry of torchvision's enum, or its name."""
    if isinstance(pretrained, WeightsEnum):
        if published is None or not isinstance(pretrained, published):
            raise WeightsError(f"{pretrained} are the weights of another model")
        pretrained = pretrained.name
    if not isinstance(pretrained, str | Path | None):
        raise WeightsError(f"pretrained={reprlib.repr(pretrained)}; {GIVE} (None: no weights)")
    if published is not None and pretrained in published.__members__:
        weights = published[str(pretrained)]
        _load(model, _download(weights), str(weights))
    elif pretrained is not None:
        load_weights(model, pretrained)
    return model


def _load(
    model: nn.Module, checkpoint: Mapping[str, Any], name: str, entry: str | None = None
) -> None:
    """Check everything before changing the model."""
    model = getattr(model, "_orig_mod", model)  # inside what torch.compile returns
    own = model.state_dict()
    found = _choose(find_weights(checkpoint, own), name, entry)
    state = found.state
    if isinstance(list(model.modules())[-1], nn.Identity):  # num_classes=0
        state = {k: v for k, v in state.items() if k in own or not k.startswith("head.")}
    afresh = _missing_end(state, own, head_of(model)) if hasattr(model, "reset_head") else []
    state = {key: value for key, value in state.items() if key not in afresh}
    _check_match(state, {key: own[key] for key in own if key not in afresh}, name)
    if found.left_out:
        LOG.warning("%s: the model has no place for %s", name, few(found.left_out))
    _start_afresh(model, afresh, name)
    model.load_state_dict(state, strict=not afresh)


def head_of(model: nn.Module) -> tuple[str, str]:
    """The names of the classifier's weight and bias in a network of this library."""
    *_, (last, _) = model.get_submodule("head").named_modules(prefix="head")
    return f"{last}.weight", f"{last}.bias"


def _choose(found: Sequence[Found], name: str, entry: str | None) -> Found:
    """The weights that fit best, or those of the given entry; a line says if there are others."""
    if entry is not None:
        found = [one for one in found if f"{one.place}.".startswith(f"{entry}.")]
    if not found:
        where = f"no {entry!r} with weights" if entry else "no weights"
        raise WeightsError(
            f"{name} holds {where}: expected tensors by name, alone or in an entry "
            f"such as {ENTRIES[0]!r} or 'model'"
        )
    others = [one.place for one in found[1:] if one.fits]
    if others:
        LOG.warning(
            "%s has several weights: %s is taken; load_weights(model, path, entry=%r) takes %s",
            name,
            found[0].place or "the file itself",
            others[0],
            "the other" if len(others) == 1 else f"the first of {few(others)}",
        )
    return found[0]


def _start_afresh(model: Any, names: Sequence[str], name: str) -> None:
    """Initialise the head anew, and the last norm, as far as a file has none; say so."""
    parts = ["no last norm"] if NORM[0] in names else []
    if NORM[0] in names:
        model.norm.reset_parameters()
    if (head := head_of(model)[0]) in names:
        parts.append(f"no head for {len(model.get_parameter(head))} classes")
        model.reset_head()
    if parts:
        start = "they start" if len(parts) > 1 else "it starts"
        LOG.warning("%s has %s: %s afresh", name, " and ".join(parts), start)


def _read(source: str | Path) -> Mapping[str, Any]:
    """Read a file of either format, whatever its name."""
    if re.match(r"(https?|s3|gs|ftp|hf|hf-hub):", str(source)):
        raise WeightsError(f"{source} is an address: download it, and give the path of the file")
    path = expanded(source)
    if not path.is_file():
        raise WeightsError(f"{source}: no such file; {_where_to_get(path)}")
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"  # eight bytes of length, then JSON
        if is_safetensors:
            return load_file(path)
        with torch.serialization.safe_globals(plain_types()):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise WeightsError(f"{path} cannot be read: permission denied") from None
    except Exception as error:  # foreign bytes can fail in many ways, KeyError among them
        said = str(error).replace(str(path), "")  # a path may hold any words
        problem = next(told for words, told in UNREADABLE.items() if words in said)
        raise WeightsError(f"{path} {problem}") from None
    return checkpoint if isinstance(checkpoint, Mapping) else {}


def _where_to_get(path: Path) -> str:
    if path.name.startswith("IMAGENET1K_V"):
        return "torchvision's come with a network, as in convnext_tiny(pretrained='IMAGENET1K_V1')"
    for address in official_addresses():
        if address.endswith(f"/{path.name}"):
            return f"download it from {address}"
    return GIVE


def _download(weights: WeightsEnum) -> Mapping[str, Any]:
    try:
        state: Mapping[str, Any] = weights.get_state_dict(
            check_hash=True, weights_only=True, map_location="cpu"
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{weights}: {reason}; download {weights.url} by hand and give its path"
        ) from None
    return state


def _missing_end(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], head: tuple[str, str]
) -> list[str]:
    """What must start afresh: the head, or the last norm and any head, of a backbone's weights."""
    has_head = head[0] in own
    afresh = [*head] if has_head and _has_other_head(state, own, head) else []
    if (afresh or not has_head) and NORM[0] in own and not any(key in state for key in NORM):
        afresh += NORM
    return afresh


def _has_other_head(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], head: tuple[str, str]
) -> bool:
    """Whether the head is missing, or differs from ours in the number of classes only."""
    if not any(key in state for key in head):
        return True
    if not all(key in state for key in head):
        return False
    weight, bias = head
    (rows, *width), (own_rows, *own_width) = state[weight].shape, own[weight].shape
    return rows != own_rows and width == own_width and state[bias].shape == (rows,)


def _check_match(state: Mapping[str, Tensor], own: Mapping[str, Tensor], name: str) -> None:
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    kinds = [
        f"{key} {state[key].dtype} {state[key].layout}".replace("torch.", "")
        for key in own
        if key in state and _kind(state[key]) != _kind(own[key])
    ]
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    problems = {"missing": missing, "unexpected": unexpected}
    problems |= {"other shapes": shapes, "other types": kinds}
    found = "; ".join(f"{kind}: {few(keys)}" for kind, keys in problems.items() if keys)
    if found:
        hint = ""
        if all(key.endswith(".gamma") for key in missing + unexpected) and not shapes + kinds:
            hint = " (gamma is LayerScale: layer_scale_init_value is 0 for none, else 1e-6)"
        raise WeightsError(f"{name} does not fit the model; {found}{hint}")


def _kind(value: Tensor) -> tuple[bool, torch.layout]:
    """What two tensors have in common if one can be copied to the other: int8 would be scaled."""
    return value.is_floating_point(), value.layout
