"""A reader's own design: counted, and trained if asked, next to the library's."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pandas as pd

from convnext_steps.measure.flops import count_flops
from convnext_steps.models.design import Design, scaled
from convnext_steps.models.network import Network
from convnext_steps.study.study import Study
from convnext_steps.study.toml import load_study
from convnext_steps.training.trainer import Trainer, seed_everything


def compare_designs(
    designs: Mapping[str, Design], train: bool = False, study: Study | str = "quick"
) -> pd.DataFrame:
    """One row per design: multiply-adds at 224x224 and parameters, and accuracy if it is trained.

    Args:
        designs: designs at the paper's size, by a name.
        train: whether to train each, scaled as the study scales its steps; nothing is stored.
        study: whose data and recipe are used.
    """
    rows = []
    for name, design in designs.items():
        count = count_flops(Network(design))
        row = {
            "design": name,
            "G multiply-adds": round(count.conv_linear / 1e9, 3),
            "M parameters": round(count.params / 1e6, 2),
        }
        if train:
            row["accuracy %"] = round(train_design(design, study), 2)
        rows.append(row)
    return pd.DataFrame(rows).set_index("design")


def train_design(
    design: Design,
    study: Study | str = "quick",
    recipe: Mapping[str, Any] = {},
) -> float:
    """Train a design as a study trains its steps with seed 0, and return its accuracy in per cent.

    Args:
        design: at the paper's size; the study scales it.
        study: whose data and recipe are used.
        recipe: fields of the recipe that differ from the study's.
    """
    study = load_study(study)
    step = study.plan([0])[-1]
    small = scaled(design, **asdict(study.scale))
    run = replace(step, design=small, config=replace(step.config, **recipe))
    seed_everything(run.seed)
    train, test = run.load_data()
    return Trainer(run.build(train), train, test, run.config, how=run.how).train().accuracy
