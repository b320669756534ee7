"""`diffct train`: a training script, started by accelerate's launcher."""

import argparse
import importlib.util
import logging
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from diffct.arguments import path_argument
from diffct.commands.parsing import CommandParser

_DEFAULTS = {
    "ct3d": "ct3d/diffusion",
    "autoencoder": "cxr/autoencoder",
    "diffusion": "cxr/diffusion",
    "controlnet": "brain/controlnet",
}
"""The default experiment of each script."""
_SCRIPTS = {stage: f"diffct.train.train_{stage}" for stage in _DEFAULTS}


def add_train(commands: "argparse._SubParsersAction") -> None:
    """Describe `diffct train`."""
    parser = commands.add_parser(
        "train",
        help="train a model",
        description="Run a training script by `accelerate launch`. `diffct train STAGE --help`"
        " lists its options.",
    )
    parser.add_argument("stage", nargs="?", choices=_SCRIPTS, metavar="STAGE", help=_listed())
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="...", help="options of the script"
    )
    parser.set_defaults(
        run=lambda options: _train(options) if options.stage else parser.print_help()
    )


def _listed() -> str:
    *first, last = _SCRIPTS
    return f"{', '.join(first)} or {last}"


def _train(options: argparse.Namespace) -> None:
    """Run a training script, and exit with its status."""
    words = _read_words(options.stage, options.words)
    hardware = [] if words.config_file is None else ["--config_file", str(words.config_file)]
    experiment = (
        []
        if words.config is None
        else ["--config", str(_choose_config(options.stage, words.config))]
    )
    resume = ["--resume"] if words.resume else []

    from accelerate.commands.launch import launch_command, launch_command_parser

    from diffct.training.launcher import COMMAND_VARIABLE

    # Otherwise accelerate lists each default that it uses.
    logging.getLogger("accelerate.commands.launch").setLevel(logging.ERROR)
    # Ctrl-C also reaches the script, which then writes a checkpoint: this process waits for it.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: None)
    script = ["--module", _SCRIPTS[options.stage], *experiment, *resume, *words.overrides]
    os.environ[COMMAND_VARIABLE] = shlex.join(["diffct", "train", options.stage, *hardware])
    try:
        launch_command(launch_command_parser().parse_args([*hardware, *script]))
    except subprocess.CalledProcessError as error:
        # The return code of a process that a signal ended is the signal's negative number.
        sys.exit(error.returncode if error.returncode > 0 else 128 - error.returncode)


def _read_words(stage: str, words: list[str]) -> argparse.Namespace:
    """Read the words after the stage on the command line."""
    parser = CommandParser(
        prog=f"diffct train {stage}",
        description="Train by `accelerate launch`. Its other options (--num_processes,"
        f" --mixed_precision, ...): accelerate launch OPTIONS -m {_SCRIPTS[stage]} ...",
    )
    parser.add_argument(
        "--config",
        type=path_argument,
        metavar="FILE|NAME",
        help="the experiment: a YAML file, or the name of one that comes with diffct:"
        f" {', '.join(_find_configs(stage))} ({_DEFAULTS[stage]})",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the last checkpoint in output_dir, with the settings saved there",
    )
    parser.add_argument(
        "--config_file",
        type=path_argument,
        metavar="FILE",
        help="the hardware: a configuration of accelerate, e.g. accelerate_config.yaml",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="a setting, e.g. optim.lr=2e-4"
    )
    return parser.parse_intermixed_args(words)


def _choose_config(stage: str, named: Path) -> Path:
    """Return the file of an experiment, given by its path or by a name that comes with diffct.

    Raises:
        FileNotFoundError: It is neither.
    """
    if named.exists():
        return named
    own = _find_configs(stage)
    if str(named) not in own:
        raise FileNotFoundError(
            f"--config {named}: there is no such file. diffct comes with {', '.join(own)}."
        )
    return own[str(named)]


def _find_configs(stage: str) -> dict[str, Path]:
    """Return the experiments of a stage that come with diffct, by name."""
    package = importlib.util.find_spec("diffct.train")
    assert package is not None and package.submodule_search_locations is not None  # a folder
    folder = Path(package.submodule_search_locations[0], "configs")
    files = [path for path in sorted(folder.glob("*/*.yaml")) if _stage_of(path) == stage]
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}


def _stage_of(path: Path) -> str:
    """Return which script reads an experiment: the one whose default it is, or of its name."""
    step = path.stem.removesuffix("-published")
    stages = {experiment: stage for stage, experiment in _DEFAULTS.items()}
    return stages.get(f"{path.parent.name}/{step}", step)
