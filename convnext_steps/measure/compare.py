"""Our counts of the roadmap's steps beside the paper's."""

from collections.abc import Iterable

import pandas as pd

from convnext_steps.measure.flops import count_flops
from convnext_steps.models.roadmap import Step
from convnext_steps.text import number


def compare_counts(steps: Iterable[Step]) -> pd.DataFrame:
    """One row per step at 224x224 with 1000 classes; multiply-adds in 1e9, params in 1e6.

    `counted` and `params` are ours, `printed` and `top-1 %` the paper's; `*` marks an erratum, a
    dash what the paper does not give.
    """
    rows = []
    for step in steps:
        count = count_flops(step.build())
        rows.append(
            {
                "step": step.name,
                "section": step.section,
                "counted": f"{count.conv_linear / 1e9:.3f}",
                "printed": number(step.paper.gflops_printed) + "*" * bool(step.paper.erratum),
                "with norms": f"{count.total / 1e9:.3f}",
                "params": f"{count.params / 1e6:.3f}",
                "top-1 %": number(step.paper.top1_mean),
            }
        )
    return pd.DataFrame(rows).set_index("step")


def errata(steps: Iterable[Step]) -> list[str]:
    """One line for each step whose printed count differs from its network's."""
    return [f"* {step.name}: {step.paper.erratum}" for step in steps if step.paper.erratum]
