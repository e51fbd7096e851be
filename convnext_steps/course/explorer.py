"""The trajectory as one page to explore, made from result files; it works offline."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from convnext_steps.course.blocks import block_of
from convnext_steps.course.drawing import draw_blocks
from convnext_steps.course.pictures import Picture
from convnext_steps.measure.diff import step_diff
from convnext_steps.models.design import Design
from convnext_steps.models.paper import TABLES, published_roadmap
from convnext_steps.models.roadmap import Step
from convnext_steps.study.loading import stored_results, study_of
from convnext_steps.study.plots import SECTION_COLORS, SECTION_TITLES
from convnext_steps.study.statistics import compare, comparisons
from convnext_steps.study.study import Study

REGIME_TITLES = {"tiny": "ResNet-50 to ConvNeXt-T", "base": "ResNet-200 to ConvNeXt-B"}
BLOCKS = {  # where to look for a step's change, by stage and index
    (0, 1): "A block of the first stage",
    (1, 0): "The first block of the second stage, with what leads to it",
}
GAIN = [  # of a row of `compare`
    *("difference", "margin", "verdict", "paper_difference", "paper_margin", "paper_verdict")
]


def explorer_page(results: str | Path | None, study: Study, links: Mapping[str, str]) -> str:
    """The page as HTML: both of the paper's regimes, opened with the study's.

    Args:
        results: the folder of your own results; by default `results/own`.
        study: whose results; where it has none, the project's own are shown.
        links: pages beside it, by what the link says.

    Raises:
        ValueError: the study is of no regime of the paper, or has none of its steps.
    """
    if study.roadmap not in REGIME_TITLES:
        known = " and ".join(REGIME_TITLES)
        raise ValueError(
            f"the explorer shows the roadmaps {known}; this study is of {study.roadmap}"
        )
    if not any(step.paper.macs for step in study.steps().values()):
        raise ValueError("the explorer shows the paper's steps; this study has none of them")
    both = {
        name: study if name == study.roadmap else study.change({"roadmap": name})
        for name in REGIME_TITLES
    }
    data = {
        "opens": study.roadmap,
        "sections": {
            section: {"title": title, "color": SECTION_COLORS[section]}
            for section, title in SECTION_TITLES.items()
            if section != "own"
        },
        "regimes": {
            name: explorer_data(stored_results(one, results)) for name, one in both.items()
        },
    }
    return filled("explorer.html", data, links)


def filled(name: str, data: Any, links: Mapping[str, str] | None) -> str:
    """A page of the templates, with its parts, its data and links to the pages beside it."""
    anchors = [f'<a href="{quote(file)}">{words}</a>' for words, file in (links or {}).items()]
    folder = Path(__file__).parent / "templates" / "explorer"
    parts = {part.name: part.read_text("utf-8") for part in folder.iterdir()}
    line = f"<p>{' · '.join(anchors)}</p>" if anchors else ""
    parts |= {"data.json": embedded(data), "links": line}
    return re.sub(r"\{\{ (\S+) \}\}", lambda match: parts[match[1]], parts[name])


def embedded(data: Any) -> str:
    """JSON that is safe inside a script element: no character of it can end the element."""
    text = json.dumps(data, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def explorer_data(ours: pd.DataFrame) -> dict[str, Any]:
    """One regime: its steps with the paper's numbers, and ours where there are results.

    Decisions that are not the paper's are left out: there is nothing to set them beside.

    Args:
        ours: a table of `load_results`; it may be empty.
    """
    study = study_of(ours)
    regime, shown = study.roadmap, {"name": study.name, "description": study.description}
    gains = compare(ours).set_index("step")[GAIN].astype(object)
    gains = gains.where(gains.notna(), None)  # as JSON knows it
    steps = {name: step for name, step in study.steps().items() if step.paper.macs}
    against = comparisons(steps)
    swin = published_roadmap(regime)["swin"]
    return {
        "title": REGIME_TITLES[regime],
        "table": TABLES[regime],
        "swin": {"title": swin.title, "top1": swin.top1_mean},
        "study": None if ours.empty else shown,
        "seeds": sorted(int(seed) for seed in set(ours["seed"])),
        "steps": [
            {
                **_describe(step, steps.get(against.get(name, ""))),
                "ours": _ours(ours[ours["step"] == name]),
                "gain": gains.loc[name].to_dict() if name in gains.index else None,
            }
            for name, step in steps.items()
        ],
    }


def _describe(step: Step, against: Step | None) -> dict[str, Any]:
    """What is known without training."""
    paper = step.paper
    drawing, caption = step_drawing(step, against)
    diff = step_diff(against, step) if against else None
    return {
        "name": step.name,
        "title": step.title,
        "section": step.section,
        "against": against.name if against else None,
        "probe": step.probe,
        "fields": {name: list(pair) for name, pair in diff.fields.items()} if diff else {},
        "diff": diff.modules if diff else "",
        "drawing": {"svg": drawing.svg(), "alternative": drawing.alternative, "caption": caption},
        "macs": paper.macs,
        "params": paper.params,
        "printed": paper.gflops_printed,
        "erratum": paper.erratum,
        "paper": {"top1": paper.top1_mean, "std": paper.top1_std},
    }


def step_drawing(step: Step, against: Step | None) -> tuple[Picture, str]:
    """The block that a step changes, before and after, and a caption; or just a block.

    Args:
        step: the step.
        against: what it is compared with, its parent, if any.
    """
    before = against or step
    for place, caption in BLOCKS.items():
        if block_of(_short(before), *place) != block_of(_short(step), *place):
            designs = {before.title: _short(before), step.title: _short(step)}
            return draw_blocks(designs, *place), f"{caption}."
    ending = "; the step leaves it as it was" if against else ""
    return draw_blocks({step.title: _short(step)}), f"{BLOCKS[0, 1]}{ending}."


def _short(step: Step) -> Design:
    """The same with two blocks per stage: the third is like the second, and building takes time."""
    return replace(step.design, depths=(2, 2, 2, 2))


def _ours(rows: pd.DataFrame) -> dict[str, Any] | None:
    """A step's own results: each seed, their mean, and the network as trained."""
    if rows.empty:
        return None
    first = rows.iloc[0]
    return {
        "seeds": [
            {"seed": int(row.seed), "top1": row.accuracy, "seconds": row.training_seconds}
            for row in rows.sort_values("seed").itertuples()
        ],
        "top1": float(rows["accuracy"].mean()),
        "seconds": float(rows["training_seconds"].mean()),
        "macs": int(first["macs"]),
        "params": int(first["params"]),
    }
