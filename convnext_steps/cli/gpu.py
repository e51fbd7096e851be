"""convnext-steps gpu: what one GPU gives, in a few minutes."""

import argparse
from pathlib import Path

from convnext_steps.cli.options import a_path, add_results_folder
from convnext_steps.execution.gpu import gpu_check, gpu_train
from convnext_steps.files import own_results

MINUTES = {"check": 4.0, "train": 8.0}


def add_gpu(parser: argparse.ArgumentParser) -> None:
    """What one GPU gives, in a few minutes.

    check: run the tests for GPUs, and time ConvNeXt-T beside timm and torchvision, and the study's
    networks by runs at once. train: the studies cifar10_jpeg_gpu and cifar10_jpeg_gpu_plain, whose
    images are in the folder CONVNEXT_STEPS_DATA. Interrupt any time; rerun to resume.
    """
    parser.add_argument("part", choices=MINUTES)
    parser.add_argument("--minutes", type=float, help="default 4 to check, 8 to train")
    parser.add_argument(
        "--output", type=a_path, default=Path(), help="folder for check's files, default here"
    )
    parser.add_argument(
        "--small", action="store_true", help="a tiny size, to try the command on a CPU too"
    )
    add_results_folder(parser)


def gpu_command(options: argparse.Namespace) -> None:
    """Check, or train, within the time."""
    minutes = options.minutes or MINUTES[options.part]
    if options.part == "check":
        options.output.mkdir(parents=True, exist_ok=True)
        gpu_check(options.output, minutes, options.small)
    else:
        gpu_train(own_results(options.results), minutes, options.small)
