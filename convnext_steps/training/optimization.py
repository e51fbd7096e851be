"""The optimiser and the learning-rate schedule that a recipe asks for."""

import math
import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from convnext_steps.errors import TrainingError
from convnext_steps.training.config import TrainingConfig


def parameter_groups(model: nn.Module, config: TrainingConfig) -> list[dict[str, object]]:
    """The parameters grouped by weight decay and learning rate.

    Norms, biases and scales do not decay. With `layer_decay`, the head has the full learning rate,
    and every other layer that fraction of the rate of the layer above it.

    Raises:
        TrainingError: no parameter trains, or it is not known which layer is above which.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    positions = layer_positions(model) if config.layer_decay != 1 else {}
    top = max(positions.values(), default=0)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 or config.decay_norms_and_biases
        weight_decay = config.weight_decay if decays else 0.0
        scale = config.layer_decay ** (top - positions.get(name, top))
        groups.setdefault((weight_decay, config.learning_rate * scale), []).append(parameter)
    if not groups:
        raise TrainingError("no parameter of the network trains: requires_grad is False for all")
    return [
        {"params": parameters, "weight_decay": weight_decay, "lr": learning_rate}
        for (weight_decay, learning_rate), parameters in groups.items()
    ]


# The names that tell a layer: those of the roadmap's networks and of the published family.
LAYER = re.compile(r"(stem|norm|head|(downsample_layers|blocks|stages\.\d+)\.\d+)\.")


def layer_positions(model: nn.Module) -> dict[str, int]:
    """The layer that each parameter belongs to, by number, from the stem (0) to the head.

    As in the official code: a stage is one layer, except that in the third stage, and in an
    isotropic network, every three blocks are one layer.

    Raises:
        TrainingError: a parameter has another name than those of this library's networks.
    """
    design = getattr(model, "design", None)
    offset = 2 if design is not None and design.downsampling == "separate" else 0
    keys = {}
    for name, _ in model.named_parameters():
        if not LAYER.match(name):
            raise TrainingError(
                f"layer_decay needs the layers' order, which the name {name} does not tell; "
                "set layer_decay=1, or train a network of this library"
            )
        keys[name] = _layer(name.split("."), offset)
    order = sorted(set(keys.values()))
    return {name: order.index(key) for name, key in keys.items()}


def _layer(name: list[str], offset: int) -> tuple[int, int]:
    """The stage and the part of it, by a parameter's name; `offset` layers precede the blocks."""
    if name[0] == "stem" or name[:2] == ["downsample_layers", "0"]:
        return (-1, 0)
    if name[0] == "downsample_layers":
        return (int(name[1]), 0)
    if name[0] == "stages":
        return (int(name[1]), max(0, int(name[2]) - offset) // 3 if name[1] == "2" else 0)
    if name[0] == "blocks":
        return (0, int(name[1]) // 3)
    return (4, 0)


def build_optimizer(
    model: nn.Module, config: TrainingConfig, graph: bool = False
) -> torch.optim.Optimizer:
    """AdamW with betas (0.9, 0.999), or SGD with momentum, at the peak learning rate.

    Args:
        model: the network.
        config: the recipe.
        graph: whether its steps are to be recorded as a CUDA graph, which reads the learning
            rates from the GPU.
    """
    groups = parameter_groups(model, config)
    for group in groups:
        group["initial_lr"] = group["lr"]
        if graph:
            group["lr"] = torch.tensor(group["lr"], device=next(model.parameters()).device)
    optimizer: torch.optim.Optimizer
    if config.optimizer == "sgd":
        fused = config.precision != "fp16"  # fused, an overflow at first leaves momentum unset
        optimizer = torch.optim.SGD(groups, momentum=config.momentum, fused=fused)
    else:
        optimizer = torch.optim.AdamW(groups, fused=True, capturable=graph)
    optimizer.register_load_state_dict_pre_hook(_with_own_groups)
    return optimizer


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Make each group's learning rate this share of its peak."""
    for group in optimizer.param_groups:
        rate = group["initial_lr"] * factor
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)  # where a CUDA graph reads it
        else:
            group["lr"] = rate


def _with_own_groups(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's state, which may be of another device, with the optimiser's own groups."""
    return {"state": state["state"], "param_groups": optimizer.state_dict()["param_groups"]}


def schedule_factor(step: int, config: TrainingConfig, total_steps: int) -> float:
    """Linear warm-up, then a cosine to the final learning rate, or a tenth after each third."""
    warmup_steps = round(config.warmup_fraction * total_steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    if config.schedule == "thirds":
        return float(0.1 ** math.floor(3 * min(done, 0.999)))
    final = config.final_learning_rate / config.learning_rate
    return final + (1 - final) * (1 + math.cos(math.pi * min(done, 1))) / 2


def moving_average(model: nn.Module) -> AveragedModel:
    """The average of a model's weights and buffers over its updates, see `update_average`."""
    average = AveragedModel(model, use_buffers=True)
    average.n_averaged = average.n_averaged.cpu()  # read at every step, without waiting for a GPU
    return average


@torch.no_grad()
def update_average(average: AveragedModel, model: nn.Module, decay: float) -> None:
    """Take a model's weights into its average, with a decay that grows up to `decay`.

    After n updates it is at most (1 + n) / (10 + n), so that the average of a short training has
    forgotten the initial weights; from 9 / (1 - decay) updates on, nothing differs. Whole numbers,
    such as indices, are copied. AveragedModel's own update would wait for a GPU at every step.
    """
    count = int(average.n_averaged)
    update = get_ema_multi_avg_fn(min(decay, (1 + count) / (10 + count)))
    pairs = zip(_tensors(average.module), _tensors(model), strict=True)
    kinds: dict[torch.dtype, list[tuple[Tensor, Tensor]]] = {}
    for pair in pairs:
        kinds.setdefault(pair[0].dtype, []).append(pair)
    for same in kinds.values():
        averaged, current = map(list, zip(*same, strict=True))
        if count == 0 or not averaged[0].is_floating_point():
            torch._foreach_copy_(averaged, current)
        else:
            update(averaged, current, average.n_averaged)
    for mean, buffer in zip(average.module.buffers(), model.buffers(), strict=True):
        if mean.is_floating_point():  # of two infinities the average would be NaN
            torch.where(buffer.isinf(), buffer, mean, out=mean)
    average.n_averaged += 1


def _tensors(model: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]
