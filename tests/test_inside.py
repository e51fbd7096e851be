"""What the course shows of trained networks."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from safetensors.torch import save_model
from studies import plan, put, result_of, small, the_study

from convnext_steps import Network, Trainer, TrainingConfig
from convnext_steps.course import inside
from convnext_steps.execution.runfolder import WEIGHTS
from convnext_steps.files import write_json
from convnext_steps.study.results import RESULT
from convnext_steps.training.data import fashion_mnist, synthetic


def network(step: str = "kernel_7") -> Network:
    return small(step).eval()


def test_accuracy_is_the_trainers() -> None:
    data = synthetic(False, 700)
    trainer = Trainer(network("gelu"), synthetic(True, 128), data, TrainingConfig(), progress=False)
    expected = trainer.evaluate()
    probabilities, labels = inside.predictions(network("gelu"), data)
    assert torch.equal(labels, data.labels)
    assert probabilities.shape == (700, 4)
    assert int((probabilities.argmax(1) == labels).sum()) == expected.correct
    assert torch.allclose(probabilities.sum(1), torch.ones(700))
    assert inside.accuracy(network("gelu"), data) == expected.accuracy


def test_networks_are_those_of_the_seed_until_weights_are_kept(tmp_path) -> None:
    networks, test, told = inside.look_into("smoke", ["resnet", "gelu"], tmp_path)
    assert told.startswith("**Not trained:** resnet, gelu.")
    assert len(test) == len(plan("smoke")[0].load_data()[1])
    (run,) = the_study("smoke").plan([0], ["gelu"])
    kept = run.build(test)
    torch.nn.init.ones_(kept.head[-1].weight)
    put(replace(run, config=replace(run.config, learning_rate=1.0)), tmp_path)
    save_model(kept, str(run.folder(tmp_path) / WEIGHTS))
    _, _, told = inside.look_into("smoke", ["gelu"], tmp_path)
    assert told.startswith("**Not trained:** gelu.")  # the weights are of another recipe
    write_json(run.folder(tmp_path) / RESULT, result_of(run))
    networks, _, told = inside.look_into("smoke", ["gelu"], tmp_path)
    assert told == "Trained as the study smoke says: gelu."
    assert all(
        torch.equal(own, networks["gelu"].state_dict()[name])
        for name, own in kept.state_dict().items()
    )


@pytest.mark.slow
@pytest.mark.parametrize(("step", "accuracy"), [("move_up", 77.87), ("kernel_7", 78.17)])
def test_the_published_networks_are_as_accurate_as_is_said(tmp_path, step, accuracy) -> None:
    networks, test, told = inside.look_into("quick", [step], tmp_path)
    assert told == f"Trained as the study quick says: {step}."
    assert inside.accuracy(networks[step], test) == pytest.approx(accuracy, abs=0.02)


def test_kernels_are_cut_to_their_centre_in_a_copy() -> None:
    whole = network()
    cut = inside.cut_kernels(whole, 3)
    for stage in range(4):
        before, after = (inside.depthwise_kernels(net, stage) for net in (whole, cut))
        assert before.shape[1:] == (7, 7)
        assert torch.equal(after[:, 2:5, 2:5], before[:, 2:5, 2:5])
        assert after.count_nonzero() == after[:, 2:5, 2:5].count_nonzero() > 0
        assert before[:, 0].count_nonzero() > 0
    image = torch.randn(2, 1, 32, 32)
    assert torch.equal(inside.cut_kernels(whole, 7)(image), whole(image))
    assert not torch.equal(cut(image), whole(image))


def test_a_stage_without_depthwise_convolutions_is_one_line() -> None:
    with pytest.raises(ValueError, match="no convolution is depthwise"):
        inside.depthwise_kernels(network("resnet"), 0)


def test_the_confusion_matrix_is_pandas_crosstab() -> None:
    generator = torch.Generator().manual_seed(0)
    labels, predicted = (torch.randint(0, 3, (200,), generator=generator) for _ in range(2))
    expected = pd.crosstab(labels.numpy(), predicted.numpy()).to_numpy()
    assert (inside.confusion(labels, predicted, list("abc")).to_numpy() == expected).all()


def test_mistakes_come_by_certainty_with_the_names_of_the_classes() -> None:
    data = fashion_mnist(train=False).first(3)  # an ankle boot, a pullover, trousers
    probabilities = torch.full((3, 10), 0.01)
    probabilities[0, 9] = 0.9  # right
    probabilities[1, 6] = 0.6
    probabilities[2, 3] = 0.8
    words = inside.draw_mistakes(data, probabilities, data.labels).alternative
    assert words.endswith(": Trouser predicted as Dress; Pullover predicted as Shirt.")
    probabilities[torch.arange(3), data.labels] = 2.0
    assert inside.draw_mistakes(data, probabilities, data.labels).alternative.endswith(": none.")


def test_kernels_and_maps_are_drawn_as_they_are() -> None:
    kernels = torch.zeros(10, 3, 3)
    kernels[:, 1, 1] = torch.arange(10) + 1
    figure = inside.draw_kernels({"a layer": kernels}).figure
    (image,) = figure.axes[0].images
    drawn = image.get_array().filled(9)
    assert drawn.shape == (2 * 4, 8 * 4)  # a gap after each
    assert (drawn[1::4, 1::4].flatten()[:10] == 1).all()
    assert (drawn[1::4, 1::4].flatten()[10:] == 9).all()
    picture = inside.draw_maps(network(), synthetic(False, 8), "gelu")
    titles = [axes.get_title() for axes in picture.figure.axes]
    assert titles[0] == "stem, 16×16"
    assert titles[-1] == "stage 4, 2×2"
