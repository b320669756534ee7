"""The inputs of all measurements: samples or a pipeline, real images, and networks."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from diffct.destination import check_writable
from diffct.device import find_device
from diffct.eval.attempts import IMPOSSIBLE
from diffct.eval.cohorts import Cohort, load_cohort
from diffct.eval.config import EvaluationConfig
from diffct.eval.image_sets import SAMPLES, ImageSet, check_comparable, images_of_folder
from diffct.eval.protocol import describe_model
from diffct.eval.samples import default_number, make_samples, training_cut
from diffct.eval.screening import Cut, screen
from diffct.hub import load_pipeline
from diffct.imaging.image_folder import find_images
from diffct.imaging.radiograph import read_radiograph
from diffct.metrics.features import FeatureNetwork, load_feature_network
from diffct.metrics.lpips import PerceptualDistance
from diffct.metrics.paired import Perceptual
from diffct.pipelines.denoising import guide_of, takes_guidance

RANDOM_2D, RANDOM_3D = "random-densenet121-seed0", "random-resnet10-3d-seed0"
_INDEX, _NETWORK = "model_index.json", "config.json"
_WINDOW_HU = (-1000.0, 1000.0)
_LPIPS = "squeeze"


@dataclass(frozen=True)
class Inputs:
    """Everything that a measurement needs.

    Attributes:
        source: The pipeline, its folder or Hub id, or the folder of samples or of an autoencoder.
        pipeline: The pipeline; None if `source` is a folder of samples or of an autoencoder.
        cohort: Training and held-out images.
        device: Where networks compute.
        config: How to evaluate.
    """

    source: str | DiffusionPipeline
    pipeline: DiffusionPipeline | None
    cohort: Cohort
    device: str
    config: EvaluationConfig

    @property
    def name(self) -> str:
        """The name of the folder of the model or samples; "pipeline" with its parent's name."""
        if isinstance(self.source, DiffusionPipeline):
            return type(self.source).__name__
        source = Path(self.source)
        if source.name == "pipeline" and source.is_dir():
            return "/".join(source.resolve().parts[-2:])
        return source.name

    @cached_property
    def model(self) -> dict[str, Any]:
        """Name and hash of the model, for protocols."""
        return describe_model(self.source)

    @property
    def samples(self) -> tuple[ImageSet, dict[str, Any] | None]:
        """The samples, read or drawn on first use, and what made them, for protocols.

        Raises:
            ValueError: No sample can be measured, or they do not match the held-out images.
        """
        if isinstance(self._samples, Exception):
            raise self._samples
        return self._samples

    @cached_property
    def _samples(self) -> tuple[ImageSet, dict[str, Any] | None] | Exception:
        """The samples or the error that prevented them, kept as trying again takes as long."""
        try:
            samples, described = (
                self._read_samples() if self.pipeline is None else self._draw(self.pipeline)
            )
            check_comparable(samples, self.cohort.held_out)
        except IMPOSSIBLE as error:
            return error
        for note in samples.notes:
            print(note.replace("**", ""))
        return samples, described

    def _read_samples(self) -> tuple[ImageSet, None]:
        held_out = self.cohort.held_out
        samples = images_of_folder(
            Path(str(self.source)),
            title=SAMPLES,
            window_hu=held_out.window_hu or _WINDOW_HU,
            spacing_mm=held_out.spacing_mm,
        )
        return screen(samples), None

    def _draw(self, pipeline: DiffusionPipeline) -> tuple[ImageSet, dict[str, Any]]:
        config = self.config
        return make_samples(
            pipeline,
            self.model,
            Path(config.out) / "samples",
            cohort=self.cohort,
            number=self.number,
            seed=config.seed,
            steps=config.steps,
            batch_size=config.batch_size,
            guidance_scale=config.guidance_scale,
            empty_prompt=config.empty_prompt,
        )

    @property
    def number(self) -> int:
        """The number of samples that the pipeline draws."""
        assert self.pipeline is not None  # samples from a folder have their number already
        return self.config.number or default_number(self.pipeline, self.cohort)

    @cached_property
    def networks(self) -> list[FeatureNetwork]:
        """The feature networks that were asked for, otherwise random ones, named as such."""
        volumes = self.cohort.held_out.unit == "HU"
        asked = self.config.feature_network or [RANDOM_2D, *([RANDOM_3D] if volumes else [])]
        loaded = []
        for words in asked:
            name, _, weights = words.partition("=")
            loaded.append(load_feature_network(name, weights=weights or None, device=self.device))
        return loaded

    @cached_property
    def perceptual(self) -> Perceptual | None:
        """LPIPS, if its weights were given."""
        weights = self.config.lpips_weights
        if weights is None:
            return None
        return PerceptualDistance(self.config.lpips or _LPIPS, backbone=weights).per_image

    def load_networks(self) -> None:
        """Load the networks asked for, so that errors in them are reported before sampling."""
        if self.config.feature_network:
            self.networks  # noqa: B018 - loads them
        self.perceptual  # noqa: B018 - loads it


def read_inputs(
    source: str | Path | DiffusionPipeline, data: str | Path, config: EvaluationConfig
) -> Inputs:
    """Load the pipeline and the real images.

    Args:
        source: A pipeline, its folder or Hub id, or a folder of samples or of an autoencoder.
        data: A manifest, the `output_dir` of a training run, or a folder of held-out images.
        config: How to evaluate.

    Raises:
        FileNotFoundError: There is no such pipeline, folder or data.
        ValueError: They do not match, or a setting is invalid.
    """
    _check(config)
    device = str(find_device(config.device))
    check_writable(Path(config.out))
    pipeline, folder = None, None
    if isinstance(source, DiffusionPipeline):
        pipeline, device = source, str(source.device)
    else:
        source, folder = str(source), Path(source)
        # A folder of samples, or of an autoencoder alone, has no model_index.json.
        if not folder.is_dir() or (folder / _INDEX).is_file():
            pipeline = load_pipeline(
                source, device=device, variant=config.variant, revision=config.revision
            )
    _refuse_unused(config, pipeline)
    if config.size:
        height, width = config.size
        cut: Cut | None = Cut((height, width))
    else:
        cut = _usual_cut(folder, pipeline)
    cohort = load_cohort(
        Path(data),
        pipeline,
        split=config.split,
        train=None if config.train is None else Path(config.train),
        window_hu=config.window_hu,
        patient_pattern=config.patient_pattern,
        cut=cut,
        source=folder,
        cache_dir=Path(config.out) / "cache",
    )
    if cohort.held_out.unit == "HU" and config.size:
        raise ValueError("--size cuts pictures, and has no meaning for volumes.")
    if cohort.held_out.unit != "HU" and config.window_hu:
        raise ValueError("--window-hu is for CT, and has no meaning for pictures.")
    if cohort.train is not None:
        check_comparable(cohort.train, cohort.held_out)
    return Inputs(source, pipeline, cohort, device, config)


def _check(config: EvaluationConfig) -> None:
    """Refuse settings that are invalid for every evaluation."""
    for name in ("number", "steps", "batch_size", "max_images"):
        given = getattr(config, name)
        if given is not None and given < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {given}.")
    if config.size and min(config.size) < 1:
        raise ValueError("--size takes two pixel counts, height and width.")
    if config.window_hu and config.window_hu[0] >= config.window_hu[1]:
        low, high = config.window_hu
        raise ValueError(f"--window-hu {low:g} {high:g}: give the lower HU first, then the higher.")
    if config.lpips is not None and config.lpips_weights is None:
        raise ValueError("--lpips needs --lpips-weights FILE, its ImageNet weights.")


def _refuse_unused(config: EvaluationConfig, pipeline: DiffusionPipeline | None) -> None:
    """Refuse options of sampling that would have no effect."""
    guided_by = guide_of(pipeline)
    unused = {
        "number": pipeline is None,
        "variant": pipeline is None,
        "revision": pipeline is None,
        "guidance_scale": not takes_guidance(pipeline),
        "empty_prompt": guided_by != "prompt",
    }
    what = "what is sampled already" if pipeline is None else f"a {type(pipeline).__name__}"
    for name, is_unused in unused.items():
        if is_unused and getattr(config, name) not in (None, False):
            raise ValueError(f"--{name.replace('_', '-')} has no meaning for {what}.")


def _usual_cut(source: Path | None, pipeline: DiffusionPipeline | None) -> Cut | None:
    """Return how real pictures are cut, by the pictures that the source makes or was trained on."""
    if source is None or pipeline is not None or (source / _NETWORK).is_file():
        return training_cut(pipeline, source)
    found = find_images(source, empty=True)
    for path in found.images if found.kind == "pictures" else ():
        try:
            height, width = read_radiograph(path, smallest_side=1, dark=True).shape
        except (ValueError, OSError):
            continue  # counted when samples are read
        return Cut((height, width), longer_side_only=True)
    return None
