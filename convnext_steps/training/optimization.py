"""The optimiser and the learning-rate schedule that a recipe asks for."""

import torch
from torch import nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    SequentialLR,
)

from convnext_steps.training.config import TrainingConfig


def parameter_groups(model: nn.Module, config: TrainingConfig) -> list[dict[str, object]]:
    """The parameters that decay, and the norms, biases and scales, which do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.decay_norms_and_biases:
        return [{"params": trained, "weight_decay": config.weight_decay}]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW with betas (0.9, 0.999), or SGD with momentum."""
    groups = parameter_groups(model, config)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.learning_rate, config.momentum, fused=True)
    return torch.optim.AdamW(groups, config.learning_rate, fused=True)


def build_schedule(
    optimizer: torch.optim.Optimizer, config: TrainingConfig, total_steps: int
) -> LRScheduler:
    """The learning rate of each step: linear warm-up, then a cosine or a tenth after each third."""
    warmup_steps = round(config.warmup_fraction * total_steps)
    remaining = max(1, total_steps - warmup_steps)
    main: LRScheduler
    if config.schedule == "cosine":
        main = CosineAnnealingLR(optimizer, remaining, config.final_learning_rate)
    else:
        main = MultiStepLR(optimizer, [round(remaining / 3), round(remaining * 2 / 3)])
    if warmup_steps == 0:
        return main
    warmup = LinearLR(optimizer, start_factor=1 / (warmup_steps + 1), total_iters=warmup_steps)
    return SequentialLR(optimizer, [warmup, main], milestones=[warmup_steps])
