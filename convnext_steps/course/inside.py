"""What trained networks have learned: their kernels, their feature maps, their mistakes."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch.utils.data import DataLoader

from convnext_steps.course.pictures import Picture
from convnext_steps.execution.runfolder import WEIGHTS, done
from convnext_steps.execution.runner import run_study
from convnext_steps.files import own_results
from convnext_steps.models.layers import evaluating
from convnext_steps.models.network import Network
from convnext_steps.models.weights import load_weights
from convnext_steps.study.figures import own_style, subplots
from convnext_steps.study.results import PROJECT_RESULTS
from convnext_steps.study.study import Study
from convnext_steps.study.toml import load_study
from convnext_steps.training.batch_transforms import Preparation
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.images import ImageData
from convnext_steps.training.items import class_names
from convnext_steps.training.trainer import seed_everything

BATCH = 500  # images at once
ROWS, COLUMNS = 3, 8  # of kernels
GREYS = colormaps["gray"].with_extremes(bad="#BBDDF5")  # of what is not a number: the gaps


def look_into(
    study: Study | str, steps: Sequence[str], results: str | Path, train: bool = False
) -> tuple[dict[str, Network], ImageData, str]:
    """A study's networks of seed 0, its test images, and a line that says what was found.

    Args:
        study: a study, or what `load_study` takes.
        steps: the steps whose networks are wanted.
        results: the folder of your own results; empty: `results/own`.
        train: whether to train first what has not been trained, keeping the weights.

    Returns:
        The networks by step: trained where weights were kept, by you or by the project, else as
        they begin.
    """
    study = load_study(study)
    published = PROJECT_RESULTS / study.name / "weights"
    study = study.change({"how.keep_weights": True, "how.notebooks": False})
    if train:
        run_study(study, [0], steps, results)
    runs = study.plan([0], steps)
    train_images, test = runs[0].load_data()
    networks, begun = {}, []
    for run in runs:
        seed_everything(run.seed)
        networks[run.step] = run.build(train_images).eval()
        own = run.folder(own_results(results))
        kept = [own / WEIGHTS] if done(run, own) else []
        kept.append(published / f"{run.step}.safetensors")
        if weights := next((path for path in kept if path.exists()), None):
            load_weights(networks[run.step], weights)
        else:
            begun.append(run.step)
    if begun:
        return networks, test, f"**Not trained:** {', '.join(begun)}. TRAIN = True trains them."
    return networks, test, f"Trained as the study {study.name} says: {', '.join(networks)}."


@torch.no_grad()
def predictions(network: nn.Module, data: ImageData) -> tuple[Tensor, Tensor]:
    """Each class's probability for each image, (images, classes), and the labels, (images,)."""
    preparation, logits, labels = _preparation(network, data), [], []
    with evaluating(network):
        for batch in DataLoader(data, BATCH):
            images, known = preparation.for_evaluation(*batch)
            logits.append(network(images))
            labels.append(known)
    return torch.cat(logits).softmax(1), torch.cat(labels)


def accuracy(network: nn.Module, data: ImageData) -> float:
    """Share of the images that the network classifies right, in per cent."""
    probabilities, labels = predictions(network, data)
    return 100 * int((probabilities.argmax(1) == labels).sum()) / len(labels)


def names_of(data: ImageData) -> tuple[str, ...]:
    """The names of the classes; where the data set has none, the labels."""
    return class_names(data) or tuple(map(str, range(data.num_classes)))


def _preparation(network: nn.Module, data: ImageData) -> Preparation:
    return Preparation(network, data, TrainingConfig(), torch.device("cpu"))


def depthwise_kernels(network: Network, stage: int) -> Tensor:
    """The kernels of the first depthwise convolution in a stage, (channels, k, k).

    Args:
        network: one that has depthwise convolutions.
        stage: counted from 0.

    Raises:
        ValueError: there is no depthwise convolution in the stage.
    """
    layers = _depthwise(network.stages[stage])
    if not layers:
        raise ValueError("no convolution is depthwise; choose a step from `depthwise` on")
    return layers[0].weight.detach()[:, 0]


def _depthwise(module: nn.Module) -> list[nn.Conv2d]:
    layers = (layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
    return [layer for layer in layers if 1 < layer.groups == layer.out_channels]


def cut_kernels(network: Network, side: int) -> Network:
    """A copy whose depthwise kernels are zero outside their central side×side."""
    cut = copy.deepcopy(network)
    for layer in _depthwise(cut):
        margin = max(0, (layer.kernel_size[0] - side) // 2)
        layer.weight.data = F.pad(F.pad(layer.weight.data, (-margin,) * 4), (margin,) * 4)
    return cut


@own_style
def draw_kernels(kernels: Mapping[str, Tensor]) -> Picture:
    """Some kernels of several layers side by side, each scaled to its largest weight.

    Args:
        kernels: (channels, k, k), by the name to write above.
    """
    figure, [panels] = subplots(
        1, len(kernels), squeeze=False, figsize=(4.5 * len(kernels), 0.6 + 0.6 * ROWS)
    )
    for axes, (name, weights) in zip(panels, kernels.items(), strict=True):
        shown = weights[: ROWS * COLUMNS]
        shown = shown / shown.abs().amax((1, 2), keepdim=True)
        _mosaic(axes, shown, name, (-1, 1))
    names = "; ".join(f"{name}, {len(weights)} channels" for name, weights in kernels.items())
    return Picture(figure, f"Depthwise kernels as grey squares, white is positive: {names}.")


@own_style
@torch.no_grad()
def draw_maps(network: Network, data: ImageData, name: str) -> Picture:
    """What the stem and each stage make of the first image: eight channels, those that vary most.

    Args:
        network: any of the roadmap.
        data: a data set.
        name: of the network, for the figure's title.
    """
    image, label = data[0]
    x, _ = _preparation(network, data).for_evaluation(image[None], torch.as_tensor(label)[None])
    figure, panels = subplots(1 + len(network.stages), 1, figsize=(8, 5.6))
    for axes, (number, part) in zip(
        panels, enumerate([network.stem, *network.stages]), strict=True
    ):
        x = part(x)
        maps = x[0][x[0].flatten(1).std(1).topk(COLUMNS).indices]  # (8, H, W)
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        where = f"stage {number}" if number else "stem"
        _mosaic(axes, (maps - low) / (high - low), f"{where}, {maps.shape[-1]}×{maps.shape[-1]}")
    what = f"one image of class {names_of(data)[int(label)]}"
    figure.suptitle(name)
    return Picture(figure, f"{name}: feature maps of {what}, after the stem and each stage.")


def _mosaic(axes: Axes, squares: Tensor, title: str, limits: tuple[float, float] = (0, 1)) -> None:
    """Draw small square pictures, (count, side, side), in rows of eight with gaps between them."""
    gap, count = max(1, squares.shape[-1] // 8), len(squares)
    padding = (0, gap, 0, gap, 0, -count % COLUMNS)
    cells = F.pad(squares, padding, value=float("nan")).unflatten(0, (-1, COLUMNS))
    whole = cells.transpose(1, 2).flatten(2).flatten(0, 1)  # (rows * side, COLUMNS * side)
    axes.imshow(whole.numpy(), cmap=GREYS, vmin=limits[0], vmax=limits[1])
    axes.set_title(title, fontsize=10)
    axes.axis("off")


def confusion(labels: Tensor, predicted: Tensor, names: Sequence[str]) -> pd.DataFrame:
    """How many images of each class (rows) were predicted as each class (columns).

    Args:
        labels: what the images are, (images,).
        predicted: what the network says they are, (images,).
        names: of the classes.
    """
    counts = torch.bincount(len(names) * labels + predicted, minlength=len(names) ** 2)
    table = counts.view(len(names), len(names)).numpy()
    return pd.DataFrame(table, index=pd.Index(names, name="is"), columns=list(names))


@own_style
def draw_mistakes(data: ImageData, probabilities: Tensor, labels: Tensor) -> Picture:
    """The ten mistakes that a network was most certain of, with both classes.

    Args:
        data: a data set.
        probabilities: as `predictions` gives them.
        labels: likewise.
    """
    names = names_of(data)
    certain, predicted = probabilities.max(1)
    wrong = torch.where(predicted != labels, certain, -1.0)
    shown = [i for i in wrong.topk(min(10, len(labels))).indices.tolist() if wrong[i] >= 0]
    figure, panels = subplots(2, 5, figsize=(9, 4.2))
    words = []
    for axes in panels.flat:
        axes.axis("off")
    for axes, index in zip(panels.flat, shown, strict=False):
        axes.imshow(data[index][0].permute(1, 2, 0).squeeze().numpy(), cmap="gray")
        is_a, taken = names[int(labels[index])], names[int(predicted[index])]
        axes.set_title(f"{is_a}\n{taken}? {100 * certain[index]:.0f} %", fontsize=9)
        words.append(f"{is_a} predicted as {taken}")
    what = "; ".join(words) or "none"
    return Picture(figure, f"Mistakes that the network was most certain of: {what}.")
