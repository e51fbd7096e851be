"""convnext-steps bench: how fast, against whom, and where the time of a study goes."""

import argparse
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convnext_steps.cli.options import add_backend, backend, find_model, positive
from convnext_steps.execution.evidence import environment
from convnext_steps.execution.timing import bookkeeping_times, run_times, runs_per_hour
from convnext_steps.files import write_json
from convnext_steps.measure.apart import measure_apart
from convnext_steps.measure.speed import Precision, Speed, Work, measure_speeds, ratio
from convnext_steps.models.design import scaled
from convnext_steps.models.network import Network
from convnext_steps.models.roadmap import Step
from convnext_steps.study.plan import plan
from convnext_steps.study.profiles import find_profile

DESCRIPTION = """Time one model, alone or in turn with a peer, in the same process or each in its
own, and print the ratio with its spread; or time a study: one run from start to result, the
runs an hour of several numbers of workers, or the bookkeeping."""
EXAMPLES = """examples:
  convnext-steps bench convnext_tiny --precision bf16 --against timm
  convnext-steps bench convnext_tiny --precision bf16 --against timm --apart
  convnext-steps bench separate_downsampling --profile quick --threads 1 --against pytorch
  convnext-steps bench convnext_base --inference --against torchvision
  convnext-steps bench --study --profile quick
  convnext-steps bench --study --profile smoke --workers 1 2 --backend ray
  convnext-steps bench --bookkeeping 10000
"""


def add_bench(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", metavar="MODEL", nargs="?", help="a step, or convnext_tiny, ...")
    parser.add_argument("--against", choices=("pytorch", "torchvision", "timm"), help="the peer")
    parser.add_argument(
        "--apart",
        action="store_true",
        help="each in a process of its own: what ours has the C library do with freed memory "
        "then does not hold for the peer",
    )
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="default fp32")
    parser.add_argument("--inference", action="store_true", help="time that, not a training step")
    parser.add_argument("--resolution", type=positive, help="default 224, or the profile's 32")
    parser.add_argument("--batch-size", type=positive, help="default 8, or the profile's")
    parser.add_argument("--profile", help="scale a step as this study does")
    parser.add_argument("--regime", default="tiny", help="tiny (the default) or base")
    parser.add_argument("--threads", type=positive, help="default: PyTorch's choice")
    parser.add_argument("--rounds", type=positive, help="timed steps of each, default 10")
    parser.add_argument("--study", action="store_true", help="time one run of a study instead")
    parser.add_argument(
        "--workers", nargs="+", type=positive, metavar="N", help="time many runs, with N at once"
    )
    add_backend(parser)
    parser.add_argument(
        "--bookkeeping",
        type=positive,
        metavar="N",
        help="time planning and reporting N made-up results",
    )
    parser.add_argument("--output", type=Path, help="write the figures as JSON too")
    parser.set_defaults(command=bench_command)


ROUNDS = 10
# Options that only some of the kinds of measurement read.
OF_A_MODEL = (
    "against",
    "apart",
    "precision",
    "inference",
    "resolution",
    "batch_size",
    "threads",
    "rounds",
)


def bench_command(options: argparse.Namespace) -> None:
    """Measure as asked, print, and write the figures where an output is given."""
    refuse_idle_options(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.study:
        figures = study_times(options)
    elif options.bookkeeping:
        figures = bookkeeping(options.bookkeeping)
    elif options.model is None:
        raise ValueError("name a model, or ask for --study or --bookkeeping")
    else:
        figures = model_times(options)
    if options.output:
        content = {"figures": figures, "environment": environment("timm")}
        write_json(options.output, content)


def refuse_idle_options(options: argparse.Namespace) -> None:
    """Say which of the options this kind of measurement would not read.

    Raises:
        ValueError: there are some.
    """
    kind, idle = "the timing of a model", ["workers", "address"]
    if options.bookkeeping:
        kind, idle = "--bookkeeping", ["model", "study", "workers", "profile", *OF_A_MODEL]
    elif options.study and options.workers:
        kind, idle = "--study --workers", ["model", *OF_A_MODEL]
    elif options.study:
        kind, idle = "--study", [*OF_A_MODEL]
    given = [name for name in idle if getattr(options, name)]
    if given:
        names = ["MODEL" if name == "model" else f"--{name.replace('_', '-')}" for name in given]
        raise ValueError(f"{kind} does not use {', '.join(names)}; leave it out")


def model_times(options: argparse.Namespace) -> dict[str, Any]:
    """Time a model and its peer in turn; print a line each, and the ratio."""
    work = work_of(options)
    builders = {"ours": partial(build, options, work)}
    if options.against:
        builders[options.against] = partial(peer, options, work)
    models = {name: builder() for name, builder in builders.items()}  # mistakes are told here
    rounds = options.rounds or ROUNDS
    if options.apart:
        speeds = measure_apart(builders, work, rounds, fast={"ours"})
    else:
        speeds = measure_speeds(models, work, rounds, fast={"ours"})
    kind = "training" if work.training else "inference"
    print(
        f"{options.model}, {kind}, {work.precision}, batch {work.batch_size}, "
        f"{work.resolution}x{work.resolution}, {torch.get_num_threads()} threads"
    )
    for name, speed in speeds.items():
        print(f"{name:12} {_describe(speed)}")
    figures: dict[str, Any] = {"model": options.model, "work": asdict(work)}
    figures |= {name: asdict(speed) for name, speed in speeds.items()}
    if options.against:
        faster = ratio(speeds["ours"], speeds[options.against])
        print(f"{faster.median:.2f} x as fast ({faster.low:.2f} to {faster.high:.2f})")
        figures["ratio"] = asdict(faster)
    return figures


def _describe(speed: Speed) -> str:
    low, high = 1000 * min(speed.seconds), 1000 * max(speed.seconds)
    memory = "" if speed.peak_memory is None else f", {speed.peak_memory / 2**20:.0f} MiB at peak"
    return (
        f"{speed.images_per_second:8.1f} images/s, {speed.milliseconds:.1f} ms "
        f"({low:.1f} to {high:.1f}), {100 * speed.share_of_peak:.0f} % of the matrix peak{memory}"
    )


def work_of(options: argparse.Namespace) -> Work:
    """What is timed: at the paper's size, or as a study's profile does it."""
    sizes = {"resolution": 224, "batch_size": 8}
    if options.profile:
        run = plan(options.profile, options.regime)[-1]  # all have the same sizes
        train, _ = run.load_data()
        sizes = {"resolution": train[0][0].shape[-1], "batch_size": run.config.batch_size}
        sizes |= {"in_channels": train.channels, "num_classes": train.num_classes}
    given = {name: getattr(options, name) for name in ("resolution", "batch_size")}
    sizes |= {name: value for name, value in given.items() if value}
    precision: Precision = options.precision or "fp32"
    return Work(training=not options.inference, precision=precision, **sizes)


def build(options: argparse.Namespace, work: Work) -> nn.Module:
    """The step's or the family's network.

    Raises:
        ValueError: there is no such model.
    """
    model = find_model(options.model, options.regime)
    if isinstance(model, Step):
        scale = find_profile(options.profile).scale if options.profile else {}
        model = partial(Network, scaled(model.design, **scale))
    return model(in_channels=work.in_channels, num_classes=work.num_classes)


def peer(options: argparse.Namespace, work: Work) -> nn.Module:
    """The same network as another library builds it; of PyTorch, our own with its plain layers.

    None drops paths: torchvision's would by default, timm's and ours would not.

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
    if options.against == "torchvision":
        import torchvision

        return torchvision.models.get_model(
            options.model, num_classes=work.num_classes, stochastic_depth_prob=0.0
        )
    try:
        import timm
    except ImportError:
        raise ValueError("--against timm needs: pip install timm") from None
    model: nn.Module = timm.create_model(options.model, num_classes=work.num_classes)
    return model


def study_times(options: argparse.Namespace) -> dict[str, Any]:
    """Time one run of a study, or many with several numbers of workers; print a line each."""
    profile = options.profile or "quick"
    if options.workers is None:
        times = run_times(profile, options.regime, options.model)
        print(f"{times['run']}, {profile}: {times['wall']:.1f} s from process to result")
        for name, value in times["seconds"].items():
            print(f"{name:26} {value:6.1f} s {100 * value / times['wall']:5.1f} %")
        return times
    rates = runs_per_hour(profile, options.regime, options.workers, *backend(options))
    for workers, rate in rates.items():
        faster = rate / next(iter(rates.values()))
        print(f"{workers} workers: {rate:6.0f} runs an hour, {faster:.2f} x")
    return {"profile": profile, "backend": backend(options)[0], "runs_per_hour": rates}


def bookkeeping(count: int) -> dict[str, Any]:
    """Time planning and reporting a study of so many results; print a line each."""
    seconds = bookkeeping_times(count)
    for name, value in {**seconds, "together": sum(seconds.values())}.items():
        print(f"{name:26} {value:6.1f} s")
    return {"results": count, "seconds": seconds}
