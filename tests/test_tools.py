"""Tools that record a network instead of running it work on every network, without a warning."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from convnext_steps import Trainer, TrainingConfig, count_flops, scaled
from convnext_steps.models.convnext import ConvNeXt, ConvNeXtIsotropic
from convnext_steps.models.network import Network
from convnext_steps.models.roadmap import roadmap
from convnext_steps.training.data import synthetic


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    found: dict[str, nn.Module] = {
        name: Network(scaled(step.design, width=1 / 8, depth=1 / 3), num_classes=4)
        for name, step in roadmap().items()
    }
    found["ConvNeXt"] = ConvNeXt((1, 1, 1, 1), (8, 12, 16, 20), num_classes=4)
    found["isotropic"] = ConvNeXtIsotropic(2, 8, num_classes=4)
    found["no classifier"] = ConvNeXt((1, 1, 1, 1), (8, 12, 16, 20), num_classes=0)
    return {name: model.eval() for name, model in found.items()}


NETWORKS = networks()
TWO, THREE = torch.randn(2, 3, 64, 64), torch.randn(3, 3, 64, 96)


def features(model: nn.Module) -> Callable[[Tensor], Tensor]:
    last = get_graph_node_names(model)[1][-1]
    extract = create_feature_extractor(model, {last: "last"})
    return lambda images: extract(images)["last"]


def exported(model: nn.Module) -> nn.Module:
    batch = torch.export.Dim("batch", min=1, max=64)
    return torch.export.export(model, (TWO,), dynamic_shapes=({0: batch},)).module()


TOOLS: dict[str, tuple[Callable[[nn.Module], Callable[[Tensor], Tensor]], bool]] = {
    "torch.fx": (torch.fx.symbolic_trace, True),  # and whether images of other sizes work
    "create_feature_extractor": (features, True),
    "torch.jit.trace": (lambda model: torch.jit.trace(model, TWO), True),
    "torch.export": (exported, False),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("tool", TOOLS)
def test_a_recorded_network_computes_the_same_without_a_warning(tool: str, name: str) -> None:
    record, any_size = TOOLS[tool]
    model = NETWORKS[name]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)  # of the tool itself
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        recorded = record(model)
        for images in (TWO, THREE if any_size else torch.cat([TWO, TWO])):
            torch.testing.assert_close(recorded(images), model(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["resnet", "separate_downsampling", "ConvNeXt"])
def test_a_network_becomes_an_onnx_file(name: str, tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # of onnxscript's own
        torch.onnx.export(NETWORKS[name], (TWO,), tmp_path / "network.onnx", verbose=False)
    onnx.checker.check_model(tmp_path / "network.onnx")


@pytest.mark.parametrize("name", ["separate_downsampling", "ConvNeXt"])
def test_a_network_is_compiled_as_one_graph(name: str) -> None:
    compiled = torch.compile(NETWORKS[name], backend="eager", fullgraph=True)
    assert torch.equal(compiled(TWO), NETWORKS[name](TWO))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_trains(tmp_path) -> None:
    model = torch.compile(
        ConvNeXt((1, 1, 1, 1), (8, 8, 8, 8), in_channels=1, num_classes=4), backend="eager"
    )
    config = TrainingConfig(max_epochs=1, batch_size=32, ema_decay=0.9)
    data = synthetic(True, 64), synthetic(False, 40)
    assert Trainer(model, *data, config, tmp_path, progress=False).train().count == 40
    assert count_flops(model, 32).params == count_flops(model._orig_mod, 32).params
