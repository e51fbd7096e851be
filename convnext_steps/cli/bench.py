"""convnext-steps bench: how fast a model is, and against whom."""

import argparse
from dataclasses import asdict, replace
from functools import partial
from typing import Any, get_args

import torch
from torch import nn

from convnext_steps.cli.options import a_path, add_changes, chosen_study, find_model, positive
from convnext_steps.device import device_name, find_device
from convnext_steps.execution.evidence import environment
from convnext_steps.files import write_json
from convnext_steps.measure.peers import LIBRARIES, published
from convnext_steps.measure.speed import Precision, Speed, Work, measure_speeds, ratio
from convnext_steps.models.design import scaled
from convnext_steps.models.network import Network
from convnext_steps.models.roadmap import Step
from convnext_steps.study.cost import work_of
from convnext_steps.study.toml import load_study
from convnext_steps.training.how import How

EXAMPLES = """examples:
  convnext-steps bench convnext_tiny --precision bf16 --against timm
  convnext-steps bench separate_downsampling --study quick --threads 1 --against pytorch
  convnext-steps bench convnext_base --inference --against torchvision
"""


def add_bench(parser: argparse.ArgumentParser) -> None:
    """Time one model, alone or in turn with a peer in this process; print the ratio."""
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", metavar="MODEL", help="a step, or convnext_tiny, ...")
    parser.add_argument("--against", choices=("pytorch", *LIBRARIES), help="the peer")
    words = "default fp32, or the study's"
    parser.add_argument("--precision", choices=get_args(Precision), help=words)
    parser.add_argument("--device", choices=get_args(How.__annotations__["device"]), default="auto")
    parser.add_argument("--compile", action="store_true", help="time all with torch.compile")
    parser.add_argument("--inference", action="store_true", help="time that, not a training step")
    parser.add_argument("--resolution", type=positive, help="default 224, or the study's")
    parser.add_argument("--batch-size", type=positive, help="default 8, or the study's")
    parser.add_argument("--study", help="time a step at the size that it has in this study")
    add_changes(parser)
    parser.add_argument("--threads", type=positive, help="default: PyTorch's choice")
    parser.add_argument("--rounds", type=positive, default=10, help="timed steps of each")
    parser.add_argument("--output", type=a_path, help="write the figures as JSON too")


def bench_command(options: argparse.Namespace) -> None:
    """Time a model and its peer in turn; print one line for each, and the ratio."""
    if options.threads:
        torch.set_num_threads(options.threads)
    work = work_asked_for(options)
    models: dict[str, Any] = {"ours": build(options, work)}
    if options.against:
        models[options.against] = peer(options, work)
    if options.compile:
        models = {name: torch.compile(model) for name, model in models.items()}
    speeds = measure_speeds(models, work, options.rounds, fast={"ours"})
    kind = "training" if work.training else "inference"
    on_cpu = find_device(work.device).type == "cpu"
    where = f"{torch.get_num_threads()} threads" if on_cpu else device_name(work.device)
    print(
        f"{options.model}, {kind}, {work.precision}, batch {work.batch_size}, "
        f"{work.resolution}x{work.resolution}, {where}"
    )
    for name, speed in speeds.items():
        print(f"{name:12} {_describe(speed)}")
    figures: dict[str, Any] = {"model": options.model, "work": asdict(work)}
    figures |= {name: asdict(speed) for name, speed in speeds.items()}
    if options.against:
        faster = ratio(speeds["ours"], speeds[options.against])
        print("{median:.2f} x as fast ({low:.2f} to {high:.2f})".format_map(faster))
        figures["ratio"] = faster
    if options.output:
        write_json(options.output, {"figures": figures, "environment": environment("timm")})


def _describe(speed: Speed) -> str:
    low, high = 1000 * min(speed.seconds), 1000 * max(speed.seconds)
    memory = "" if speed.peak_memory is None else f", {speed.peak_memory / 2**20:.0f} MiB at peak"
    return (
        f"{speed.images_per_second:8.1f} images/s, {speed.milliseconds:.1f} ms "
        f"({low:.1f} to {high:.1f}), {100 * speed.share_of_peak:.0f} % of the matrix peak{memory}"
    )


def work_asked_for(options: argparse.Namespace) -> Work:
    """What is timed: at the paper's size, or a study's."""
    work = Work()
    if options.study:
        run = chosen_study(options).plan()[-1]  # all have the same sizes
        work = work_of(run, run.load_data()[0])
    names = ("resolution", "batch_size", "precision", "device")
    given = {name: getattr(options, name) for name in names if getattr(options, name)}
    return replace(work, training=not options.inference, **given)


def build(options: argparse.Namespace, work: Work) -> nn.Module:
    """The step's or the family's network.

    Raises:
        ValueError: there is no such model.
    """
    if not options.study and (options.changes or options.name or options.uses):
        raise ValueError("--set, --name and --uses change a study; name it with --study")
    study = chosen_study(options) if options.study else load_study("quick")
    model = find_model(options.model, study)
    if isinstance(model, Step):
        scale = asdict(study.scale) if options.study else {}
        model = partial(Network, scaled(model.design, **scale))
    return model(in_channels=work.in_channels, num_classes=work.num_classes)


def peer(options: argparse.Namespace, work: Work) -> nn.Module:
    """The same network of another library; of PyTorch, our own with plain layers.

    Raises:
        ValueError: that library has no such model, or is not installed.
    """
    if options.against == "pytorch":
        return build(options, work)
    known = ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large")
    if options.model not in known:
        raise ValueError(f"{options.against} is timed on {', '.join(known)}, not {options.model}")
    if work.in_channels != 3:
        raise ValueError(f"{options.against}'s models take three channels, not {work.in_channels}")
    return published(options.against, options.model, work.num_classes)
