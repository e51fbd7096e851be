"""Effective receptive fields (Luo et al., 2016): which pixels change a feature, and how much."""

from collections.abc import Mapping

import torch
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from convnext_steps.course.pictures import Picture
from convnext_steps.models.design import Design, scaled
from convnext_steps.models.network import Network
from convnext_steps.study.figures import own_style, subplots

SHARE = 0.9  # of the gradient, inside the square whose side is given
FAINTEST = 1e-4  # of the strongest gradient, that is still drawn
NARROW = 1 / 8  # of the paper's width, so that a laptop measures it in seconds


def receptive_field(layers: nn.Module, images: Tensor) -> Tensor:
    """How strongly each pixel changes the middle of the output: mean absolute gradients, (H, W).

    The values sum to 1.

    Args:
        layers: from images to feature maps.
        images: (N, C, H, W), over which the mean is taken.
    """
    images = images.detach().requires_grad_()
    features = layers(images)  # (N, C, H', W')
    middle = features[:, :, features.shape[2] // 2, features.shape[3] // 2]
    (gradient,) = torch.autograd.grad(middle.sum(), images)
    field = gradient.abs().sum(dim=(0, 1))  # (H, W)
    return field / field.sum()


def field_side(field: Tensor, share: float = SHARE) -> int:
    """The side in pixels of the smallest square around the field's centre that holds a share of it.

    Args:
        field: (H, W), non-negative.
        share: between 0 and 1.
    """
    weights = field / field.sum()
    rows, columns = torch.arange(field.shape[0]), torch.arange(field.shape[1])
    row = round(float((weights.sum(1) * rows).sum()))
    column = round(float((weights.sum(0) * columns).sum()))
    distance = torch.maximum((rows - row).abs()[:, None], (columns - column).abs()[None])
    inside = [weights[distance <= radius].sum() for radius in range(int(distance.max()))]
    return 2 * sum(bool(each < share) for each in inside) + 1


def stage_field(design: Design, images: int = 8) -> Tensor:
    """The field of the middle position after the third stage, of a network that is not trained.

    The network is an eighth as wide as the design; kernels, depths and strides are the design's.

    Args:
        design: at the paper's size.
        images: random images of 224×224 pixels to average over, always the same.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network(scaled(design, width=NARROW)).eval()
        noise = torch.randn(images, 3, 224, 224)
    return receptive_field(nn.Sequential(network.stem, *network.stages[:3]), noise)


@own_style
def draw_fields(designs: Mapping[str, Design], images: int = 8) -> Picture:
    """The fields of several designs side by side; a square holds nine tenths of each.

    Args:
        designs: by the name to write above.
        images: random images to average over.
    """
    figure, [panels] = subplots(
        1, len(designs), sharey=True, squeeze=False, figsize=(2.6 * len(designs), 3.4)
    )
    words = []
    for axes, (name, design) in zip(panels, designs.items(), strict=True):
        field = stage_field(design, images)
        side = field_side(field)
        scale = LogNorm(FAINTEST, 1)
        image = axes.imshow(
            (field / field.max()).clamp(min=FAINTEST).numpy(), cmap="cividis", norm=scale
        )
        corner = (field.shape[0] - side) / 2
        frame = Rectangle((corner, corner), side, side, fill=False, edgecolor="white")
        axes.add_patch(frame)
        axes.set(title=f"{name}\n90 %: {side} pixels", xlabel="column (pixels)")
        words.append(f"{name}: 90 % within {side} pixels")
    panels[0].set_ylabel("row (pixels)")
    figure.colorbar(image, ax=panels, label="gradient (share of the largest)", fraction=0.03)
    return Picture(figure, f"Effective receptive fields after the third stage. {'; '.join(words)}.")
