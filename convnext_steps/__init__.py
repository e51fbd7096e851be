"""How a ResNet becomes a ConvNeXt: every step of the roadmap, built, counted and trained.

The names below are imported when they are asked for: `convnext-steps doctor` has to speak where
PyTorch or torchvision cannot be imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convnext_steps.execution.runner import run_study
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
    from convnext_steps.models.roadmap import add_step, find_step, roadmap
    from convnext_steps.models.weights import load_weights
    from convnext_steps.study.loading import load_results
    from convnext_steps.study.plots import plot_trajectory
    from convnext_steps.study.study import Study
    from convnext_steps.study.toml import load_study
    from convnext_steps.training.config import RECIPES, TrainingConfig
    from convnext_steps.training.data import load_data
    from convnext_steps.training.how import How
    from convnext_steps.training.trainer import Trainer

__all__ = [
    "RECIPES",
    "ConvNeXt",
    "ConvNeXtIsotropic",
    "Design",
    "How",
    "Network",
    "Study",
    "Trainer",
    "TrainingConfig",
    "add_step",
    "convnext_base",
    "convnext_isotropic_base",
    "convnext_isotropic_large",
    "convnext_isotropic_small",
    "convnext_large",
    "convnext_small",
    "convnext_tiny",
    "convnext_xlarge",
    "count_flops",
    "find_step",
    "load_data",
    "load_results",
    "load_study",
    "load_weights",
    "plot_trajectory",
    "roadmap",
    "run_study",
    "scaled",
    "step_diff",
]

_MODULES = {
    "RECIPES": "training.config",
    "Design": "models.design",
    "How": "training.how",
    "Network": "models.network",
    "Trainer": "training.trainer",
    "TrainingConfig": "training.config",
    "add_step": "models.roadmap",
    "count_flops": "measure.flops",
    "find_step": "models.roadmap",
    "load_data": "training.data",
    "Study": "study.study",
    "load_study": "study.toml",
    "run_study": "execution.runner",
    "load_results": "study.loading",
    "load_weights": "models.weights",
    "plot_trajectory": "study.plots",
    "roadmap": "models.roadmap",
    "scaled": "models.design",
    "step_diff": "measure.diff",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES.get(name, "models.convnext")  # the published family
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
