"""convnext-steps train: any model on any data set with any recipe."""

import argparse
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import Field, fields, replace
from typing import Any, Literal, get_args, get_origin

from torch import nn

from convnext_steps.cli.options import a_path, find_model
from convnext_steps.models.paper import published_family
from convnext_steps.models.roadmap import Step
from convnext_steps.study.toml import load_study
from convnext_steps.text import few, unknown
from convnext_steps.training.config import RECIPES, TrainingConfig
from convnext_steps.training.data import SOURCES, load_data
from convnext_steps.training.distributed import join
from convnext_steps.training.how import OF_THE_STUDY, How
from convnext_steps.training.images import ImageData
from convnext_steps.training.trainer import Trainer, seed_everything

EXAMPLES = """examples:
  convnext-steps train gelu --output out --max-epochs 5 --batch-size 64
  convnext-steps train convnext_tiny --data imagenet --recipe paper --output out --data-workers 8
  convnext-steps train convnext_base --data folder --data-root photos --recipe finetune \\
      --pretrained convnext_base_1k_224_ema.pth --output out
  torchrun --nproc-per-node 8 -m convnext_steps train convnext_tiny --data imagenet \\
      --recipe paper --precision bf16 --output out --resume
"""
UNASKED = ("processes", *OF_THE_STUDY)  # torchrun says how many processes
HOW = [option for option in fields(How) if option.name not in UNASKED]


def add_train(parser: argparse.ArgumentParser) -> None:
    """Train one step of the roadmap, or one model of the published family.

    Interrupt any time; rerun with --resume, and it ends with the same weights, to the last bit.
    Under torchrun it trains in all of its processes: torchrun -m convnext_steps train ...
    """
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", metavar="MODEL", help="a step such as gelu, or convnext_tiny, ...")
    parser.add_argument("--output", type=a_path, required=True, help="folder for all it writes")
    parser.add_argument("--roadmap", default="tiny", help="of a step: tiny (default) or base")
    parser.add_argument("--data", default="fashion_mnist", help=", ".join(SOURCES))
    parser.add_argument("--data-root", type=a_path, help="where the data are, or are downloaded to")
    parser.add_argument("--train-images", type=int, help="train on only the first N", metavar="N")
    parser.add_argument("--held-out", type=float, default=0.0, help="test on this share of them")
    parser.add_argument("--skip-broken", action="store_true", help="leave out unreadable images")
    parser.add_argument("--recipe", help=f"{', '.join(RECIPES)}; default: the fields' defaults")
    parser.add_argument("--pretrained", help="a file, or a name of torchvision's weights")
    parser.add_argument("--resume", action="store_true", help="resume from the newest checkpoint")
    parser.add_argument("--tensorboard", action="store_true", help="log to OUTPUT/tensorboard too")
    recipe = parser.add_argument_group("the recipe", "the fields of TrainingConfig")
    for option in fields(TrainingConfig):
        _add_option(recipe, option)
    how = parser.add_argument_group("how the work is done", "the fields of How")
    for option in HOW:
        _add_option(how, option)


def _add_option(group: argparse._ArgumentGroup, option: "Field[Any]") -> None:
    flag = "--" + option.name.replace("_", "-")
    default = f"{option.default:.4g}" if isinstance(option.default, float) else option.default
    text = f"{option.metadata['help']}; default {default}"
    if option.type is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
    elif get_origin(option.type) is Literal:
        group.add_argument(flag, choices=get_args(option.type), help=text)
    else:
        group.add_argument(flag, type=option.type, metavar="N", help=text)


def train_command(options: argparse.Namespace) -> None:
    """Train as asked, and print where the weights are."""
    config, how = config_from(options), How(**given(options, HOW))
    join(how.device)  # whatever is wrong with it is said before anything is downloaded
    train, test = load_data(
        options.data,
        options.train_images,
        config=config,
        root=options.data_root,
        held_out=options.held_out,
        skip_broken=options.skip_broken,
    )
    seed_everything(config.seed)
    model = build(options, train, config)
    trainer = Trainer(model, train, test, config, options.output, how=how)
    with _tensorboard(options, trainer.processes.main) as trainer.log:
        evaluation = trainer.train(resume=options.resume)
    if trainer.processes.main:
        print(f"{evaluation.accuracy:.2f} % of {evaluation.count:,} test images")
        if evaluation.classes:
            print(f"classes, in this order: {few(evaluation.classes, most=12)}")
        last = trainer.history[-1]
        if "ema_accuracy" in last:
            print(f"{last['ema_accuracy']:.2f} % with the moving average of the weights")
        print(f"weights: {options.output / 'final.safetensors'}")


def config_from(options: argparse.Namespace) -> TrainingConfig:
    """The named recipe with the fields that were given on the command line.

    Raises:
        ValueError: there is no such recipe, or a field is out of range.
    """
    values = given(options, fields(TrainingConfig))
    if options.recipe is None:
        return TrainingConfig(**values)
    if options.recipe not in RECIPES:
        raise ValueError(unknown("recipe", options.recipe, RECIPES))
    family = published_family()
    if options.model in family and options.recipe != "resnet_original":
        rate = float(family[options.model]["drop_path_1k"] or 0)
        values = {"drop_path_rate": rate} | values
        if "isotropic" in options.model and options.recipe == "paper":
            values = {"warmup_fraction": 50 / 300} | values  # Table 5
    return replace(RECIPES[options.recipe], **values)


def given(options: argparse.Namespace, known: "Iterable[Field[Any]]") -> dict[str, Any]:
    """The values of those of the fields that were given on the command line."""
    values = {option.name: getattr(options, option.name) for option in known}
    return {name: value for name, value in values.items() if value is not None}


def build(options: argparse.Namespace, data: ImageData, config: TrainingConfig) -> nn.Module:
    """The step's or the family's network for the channels and classes of the data.

    Raises:
        ValueError: there is no such model, or the weights do not fit it.
    """
    model = find_model(options.model, load_study("quick").change({"roadmap": options.roadmap}))
    shape = {"in_channels": data.channels, "num_classes": data.num_classes}
    if isinstance(model, Step):
        if options.pretrained:
            raise ValueError("--pretrained works with the published family, not with a step")
        return model.build(**shape, drop_path_rate=config.drop_path_rate)
    scale = float(published_family()[options.model]["layer_scale"] or 0)
    published = {"layer_scale_init_value": scale}
    if options.recipe == "finetune":
        published["head_init_scale"] = 0.001
    return model(options.pretrained, **shape, **published, drop_path_rate=config.drop_path_rate)


@contextlib.contextmanager
def _tensorboard(options: argparse.Namespace, main: bool) -> Iterator[Callable[..., None] | None]:
    """A function that logs an entry of the history, for the main process if it was asked for.

    Raises:
        ValueError: TensorBoard is not installed.
    """
    if not (options.tensorboard and main):
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError("--tensorboard needs: pip install 'convnext-steps[tensorboard]'") from None
    with SummaryWriter(options.output / "tensorboard") as writer:

        def log(entry: Mapping[str, float]) -> None:
            for name, value in entry.items():
                if name not in ("step", "total_steps"):
                    writer.add_scalar(name, value, entry["step"])

        yield log
