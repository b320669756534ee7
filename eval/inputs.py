"""What the evaluation commands have in common: samples or a pipeline, real images, networks."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from diffct.config import finite_number, folder_or_id, path_argument
from diffct.cores import share_cores
from diffct.data.manifest import SPLITS
from diffct.destination import prove_writable
from diffct.device import find_device
from diffct.eval.attempts import IMPOSSIBLE
from diffct.eval.cohorts import Cohort, load_cohort
from diffct.eval.image_sets import SAMPLES, ImageSet, check_comparable, images_of_folder
from diffct.eval.samples import (
    add_sampling_arguments,
    default_number,
    make_samples,
    training_cut,
)
from diffct.eval.screening import Cut, screen
from diffct.hub import load_pipeline
from diffct.imaging.image_folder import find_images
from diffct.imaging.radiograph import read_radiograph
from diffct.metrics.features import FeatureNetwork, load_feature_network
from diffct.metrics.lpips import BACKBONES, PerceptualDistance
from diffct.metrics.paired import Perceptual
from diffct.pipelines import CT3DPipeline, TextToImagePipeline

RANDOM_2D, RANDOM_3D = "random-densenet121-seed0", "random-resnet10-3d-seed0"
_INDEX, _NETWORK = "model_index.json", "config.json"
_WINDOW_HU = (-1000.0, 1000.0)
_LPIPS = "squeeze"


@dataclass(frozen=True)
class Inputs:
    """Everything that a measurement needs.

    Attributes:
        source: The pipeline's folder or Hub id, or the folder of samples.
        pipeline: None if `source` is a folder of samples.
        cohort: Training and held-out images.
        device: Where networks compute.
        options: Of the command line.
    """

    source: str
    pipeline: DiffusionPipeline | None
    cohort: Cohort
    device: str
    options: argparse.Namespace

    @property
    def samples(self) -> tuple[ImageSet, dict[str, Any] | None]:
        """The samples, read or drawn when first asked for, and what made them, for protocols.

        Raises:
            ValueError: No sample can be measured, or they do not fit the held-out images.
        """
        if isinstance(self._samples, Exception):
            raise self._samples
        return self._samples

    @cached_property
    def _samples(self) -> tuple[ImageSet, dict[str, Any] | None] | Exception:
        """The samples or why there are none, kept since to try again would take as long."""
        # A mistyped network or missing weights are said now, not when everything is sampled.
        if self.options.feature_network:
            self.networks  # noqa: B018 - loads them
        self.perceptual  # noqa: B018 - loads it
        try:
            samples, described = self._read_samples() if self.pipeline is None else self._draw()
            check_comparable(samples, self.cohort.held_out)
        except IMPOSSIBLE as error:
            return error
        for note in samples.notes:
            print(note.replace("**", ""))
        return samples, described

    def _read_samples(self) -> tuple[ImageSet, None]:
        held_out = self.cohort.held_out
        samples = images_of_folder(
            Path(self.source),
            title=SAMPLES,
            window_hu=held_out.window_hu or _WINDOW_HU,
            spacing_mm=held_out.spacing_mm,
        )
        return screen(samples), None

    def _draw(self) -> tuple[ImageSet, dict[str, Any]]:
        options = self.options
        return make_samples(
            self.pipeline,
            self.source,
            options.out / "samples",
            cohort=self.cohort,
            number=self.number,
            seed=options.seed,
            steps=options.steps,
            batch_size=options.batch_size,
            guidance_scale=options.guidance_scale,
            empty_prompt=options.empty_prompt,
        )

    @property
    def number(self) -> int:
        """How many samples a pipeline draws."""
        return self.options.num or default_number(self.pipeline, self.cohort)

    @cached_property
    def networks(self) -> list[FeatureNetwork]:
        """The feature networks that were asked for, or random ones, which say so."""
        volumes = self.cohort.held_out.unit == "HU"
        asked = self.options.feature_network or [RANDOM_2D, *([RANDOM_3D] if volumes else [])]
        loaded = []
        for words in asked:
            name, _, weights = words.partition("=")
            loaded.append(load_feature_network(name, weights=weights or None, device=self.device))
        return loaded

    @cached_property
    def perceptual(self) -> Perceptual | None:
        """LPIPS, if its weights were given."""
        if self.options.lpips_weights is None:
            return None
        network = PerceptualDistance(
            self.options.lpips or _LPIPS, backbone=self.options.lpips_weights
        )
        return network.per_image


def read_inputs(options: argparse.Namespace) -> Inputs:
    """Load the pipeline and the real images.

    Raises:
        FileNotFoundError: There is no such pipeline, folder or data.
        ValueError: They do not fit each other.
    """
    for name in ("num", "steps", "batch_size", "most"):
        given = getattr(options, name)
        if given is not None and given < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1.")
    if options.size and min(options.size) < 1:
        raise ValueError("--size takes two pixel counts, height and width.")
    if options.window_hu and options.window_hu[0] >= options.window_hu[1]:
        low, high = options.window_hu
        raise ValueError(f"--window-hu {low:g} {high:g}: give the lower HU first, then the higher.")
    device = str(find_device(options.device))
    prove_writable(options.out)
    folder = Path(options.source)
    # A folder of samples, or an autoencoder alone, has no pipeline's index.
    samples_only = folder.is_dir() and not (folder / _INDEX).is_file()
    pipeline = None
    if not samples_only:
        pipeline = load_pipeline(
            options.source, device=device, variant=options.variant, revision=options.revision
        )
    _refuse_idle(options, pipeline)
    cohort = load_cohort(
        options.data,
        pipeline,
        split=options.split,
        train=options.train,
        window_hu=options.window_hu,
        patient_pattern=options.patient_pattern,
        cut=Cut(tuple(options.size)) if options.size else _usual_cut(folder, pipeline),
        source=folder,
        cache_dir=options.out / "cache",
    )
    if cohort.held_out.unit == "HU" and options.size:
        raise ValueError("--size cuts pictures, and has no meaning for volumes.")
    if cohort.held_out.unit != "HU" and options.window_hu:
        raise ValueError("--window-hu is for CT, and has no meaning for pictures.")
    if cohort.train is not None:
        check_comparable(cohort.train, cohort.held_out)
    return Inputs(options.source, pipeline, cohort, device, options)


def _refuse_idle(options: argparse.Namespace, pipeline: DiffusionPipeline | None) -> None:
    """Refuse options of sampling that would do nothing."""
    idle = {
        "num": pipeline is None,
        "variant": pipeline is None,
        "revision": pipeline is None,
        "guidance_scale": pipeline is None or isinstance(pipeline, CT3DPipeline),
        "empty_prompt": not isinstance(pipeline, TextToImagePipeline),
    }
    what = "what is sampled already" if pipeline is None else f"a {type(pipeline).__name__}"
    for name, does_nothing in idle.items():
        if does_nothing and getattr(options, name) not in (None, False):
            raise ValueError(f"--{name.replace('_', '-')} has no meaning for {what}.")
    if options.lpips is not None and options.lpips_weights is None:
        raise ValueError("--lpips needs --lpips-weights FILE, its ImageNet weights.")


def _usual_cut(source: Path, pipeline: DiffusionPipeline | None) -> Cut | None:
    """Return what real pictures are cut to, by what the source makes or has learnt from."""
    if pipeline is not None or (source / _NETWORK).is_file():
        return training_cut(pipeline, source)
    found = find_images(source, empty=True)
    for path in found.images if found.kind == "pictures" else ():
        try:
            height, width = read_radiograph(path, smallest_side=1, dark=True).shape
        except (ValueError, OSError):
            continue  # counted when samples are read
        return Cut((height, width), longer_side_only=True)
    return None


def parse_inputs(
    description: str | None, arguments: Sequence[str] | None, *, out: str
) -> argparse.Namespace:
    """Read the command line of an evaluation script.

    Args:
        description: What it does.
        arguments: None for the process's own.
        out: Default of `--out`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_input_arguments(parser, out=out)
    share_cores()
    return parser.parse_args(arguments)


def add_input_arguments(parser: argparse.ArgumentParser, *, out: str) -> None:
    """Describe what all evaluation commands take."""
    parser.add_argument("--variant", help="of the pipeline's weights, e.g. fp16 (none)")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub (main)")
    parser.add_argument(
        "source", type=folder_or_id, help="pipeline (folder or Hub id), or a folder of samples"
    )
    parser.add_argument(
        "--data",
        type=path_argument,
        required=True,
        help="manifest, output_dir of a training run, or a folder of held-out images",
    )
    parser.add_argument(
        "--train",
        type=path_argument,
        help="folder of training images, if --data is a folder of held-out ones; without it,"
        " privacy is not measured, and figures have no yardstick",
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="cut real pictures to so many pixels around their centres, as training did (what the"
        " pipeline was trained at)",
    )
    parser.add_argument(
        "--patient-pattern",
        metavar="REGEX",
        help="whose image each file of --data and --train is: a regular expression with one (group)"
        " found in each path inside its folder, as in data.patient_pattern (DICOM's PatientID, or"
        " else every image is a patient of its own)",
    )
    parser.add_argument(
        "--split", choices=SPLITS[1:], help="which split of a manifest is held out (test)"
    )
    parser.add_argument(
        "--window-hu",
        type=finite_number,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="for folders of CT (the pipeline's, or -1000 1000)",
    )
    add_sampling_arguments(parser)
    _add_network_arguments(parser)
    parser.add_argument(
        "--most",
        type=int,
        help="use so many images of each set at most (all); privacy is always asked of all",
    )
    parser.add_argument("--device", help="cuda, cpu, ... (a GPU if there is one)")
    parser.add_argument("--out", type=path_argument, default=Path(out), help=f"folder ({out})")


def _add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the networks that look at images."""
    parser.add_argument(
        "--feature-network",
        action="append",
        metavar="NAME=WEIGHTS",
        help="xrv-densenet121-all, radimagenet-resnet50, medicalnet-resnet50 ... with the file of"
        " its weights; again for more (random networks, which say so)",
    )
    parser.add_argument(
        "--lpips", choices=tuple(BACKBONES), help="network of --lpips-weights (squeeze)"
    )
    parser.add_argument(
        "--lpips-weights", type=path_argument, help="its ImageNet weights; without: no LPIPS"
    )
