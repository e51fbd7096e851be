"""Other libraries' ConvNeXts, to time ours beside."""

from torch import nn

LIBRARIES = ("torchvision", "timm")


def published(library: str, name: str, num_classes: int = 1000) -> nn.Module:
    """The network of another library, such as "convnext_tiny".

    None drops paths: torchvision's would by default, timm's and ours would not.

    Raises:
        ValueError: that library is not installed.
    """
    if library == "torchvision":
        import torchvision

        return torchvision.models.get_model(
            name, num_classes=num_classes, stochastic_depth_prob=0.0
        )
    try:
        import timm
    except ImportError:
        raise ValueError("--against timm needs: pip install timm") from None
    model: nn.Module = timm.create_model(name, num_classes=num_classes)
    return model
