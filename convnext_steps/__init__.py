"""How a ResNet becomes a ConvNeXt: every step of the roadmap, built, counted and trained."""

from convnext_steps.measure.diff import step_diff
from convnext_steps.measure.flops import count_flops
from convnext_steps.models.convnext import (
    ConvNeXt,
    ConvNeXtIsotropic,
    convnext_base,
    convnext_isotropic_base,
    convnext_isotropic_large,
    convnext_isotropic_small,
    convnext_large,
    convnext_small,
    convnext_tiny,
    convnext_xlarge,
)
from convnext_steps.models.design import Design, scaled
from convnext_steps.models.network import Network
from convnext_steps.models.roadmap import roadmap
from convnext_steps.study.plots import plot_trajectory
from convnext_steps.study.results import load_results
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.trainer import Trainer

__all__ = [
    "ConvNeXt",
    "ConvNeXtIsotropic",
    "Design",
    "Network",
    "Trainer",
    "TrainingConfig",
    "convnext_base",
    "convnext_isotropic_base",
    "convnext_isotropic_large",
    "convnext_isotropic_small",
    "convnext_large",
    "convnext_small",
    "convnext_tiny",
    "convnext_xlarge",
    "count_flops",
    "load_results",
    "plot_trajectory",
    "roadmap",
    "scaled",
    "step_diff",
]
