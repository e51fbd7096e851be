"""The numbers that "A ConvNet for the 2020s" (Liu et al., CVPR 2022) prints, as data.

`roadmap.csv` holds Tables 10 and 11, `family.csv` Tables 1 and 2. The two exact columns of each,
multiply-adds and parameters, were counted on the authors' own models.
"""

import csv
from dataclasses import dataclass
from importlib.resources import files

TABLES = {"tiny": "Table 10", "base": "Table 11"}  # of the two roadmaps
ERRATA = {
    ("tiny", "layer_norm"): (
        "Table 10 prints 4.46, the network counts 4.15: LayerNorm adds no multiply-adds of "
        "convolutions, Table 11 shows no change here, and Figure 2 shows 4.2. It looks like the "
        "next row's number."
    ),
    ("tiny", "separate_downsampling"): (
        "Table 10 prints 4.49, the network counts 4.46; Figure 2's 4.5 fits both."
    ),
}


@dataclass(frozen=True)
class Published:
    """What the paper prints about one step (top-1 in per cent, ImageNet-1K), with exact counts.

    A step that is not in the paper has a title, section and parent only.
    """

    title: str
    section: str
    parent: str | None
    top1_mean: float | None = None
    top1_std: float | None = None  # over three seeds; the tiny regime only
    gflops_printed: float | None = None  # 1e9 multiply-adds of convolutions and linear layers
    macs: int | None = None  # the same, counted, at 1x3x224x224
    params: int | None = None  # with 1000 classes and without LayerScale
    erratum: str | None = None


def published_roadmap(regime: str) -> dict[str, Published]:
    """The rows of Table 10 ("tiny") or 11 ("base") by step name, the Swin reference last."""
    text = files(__package__).joinpath("roadmap.csv").read_text(encoding="utf-8")
    return {
        row["step"]: Published(
            title=row["title"],
            section=row["section"],
            parent=row["parent"] or None,
            top1_mean=_number(row["top1_mean"]),
            top1_std=_number(row["top1_std"]),
            gflops_printed=_number(row["gflops_printed"]),
            macs=_integer(row["conv_linear_macs_224"]),
            params=_integer(row["params_1000_classes"]),
            erratum=ERRATA.get((regime, row["step"])),
        )
        for row in csv.DictReader(text.splitlines())
        if row["regime"] == regime
    }


def published_family() -> dict[str, dict[str, str]]:
    """The rows of `family.csv`, cells as they are printed, by the name of the builder."""
    text = files(__package__).joinpath("family.csv").read_text(encoding="utf-8")
    return {row["builder"]: row for row in csv.DictReader(text.splitlines())}


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


def _integer(cell: str) -> int | None:
    return int(cell) if cell else None
