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

_NAMES = {  # module: what is imported from it
    "execution.runner": "run_study",
    "measure.diff": "step_diff",
    "measure.flops": "count_flops",
    "models.convnext": (
        "ConvNeXt ConvNeXtIsotropic convnext_base convnext_isotropic_base "
        "convnext_isotropic_large convnext_isotropic_small convnext_large convnext_small "
        "convnext_tiny convnext_xlarge"
    ),
    "models.design": "Design scaled",
    "models.network": "Network",
    "models.roadmap": "add_step find_step roadmap",
    "models.weights": "load_weights",
    "study.loading": "load_results",
    "study.plots": "plot_trajectory",
    "study.study": "Study",
    "study.toml": "load_study",
    "training.config": "RECIPES TrainingConfig",
    "training.data": "load_data",
    "training.how": "How",
    "training.trainer": "Trainer",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
