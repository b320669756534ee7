"""Samples of a pipeline as files without loss: what is measured is what would be shared."""

import json
from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import DiffusionPipeline

from diffct.atomic import atomic_folder
from diffct.cohort_folder import holds_cohort, record_cohort
from diffct.eval.cohorts import Cohort
from diffct.eval.conditions import read_conditions
from diffct.eval.image_sets import (
    SAMPLES,
    ImageSet,
    pictures_of_folder,
    volumes_of_folder,
)
from diffct.eval.run_folder import read_settings
from diffct.eval.screening import Cut, screen
from diffct.imaging.radiograph import write_png
from diffct.pipelines.denoising import guide_of, makes_volumes
from diffct.pipelines.outputs import CT3DPipelineOutput, TextToImagePipelineOutput

_VOLUMES, _IMAGES = 16, 200
_SENTENCES = 4  # of a held-out report, as the training draws them


def make_samples(
    pipeline: DiffusionPipeline,
    model: dict[str, Any],
    folder: Path,
    *,
    cohort: Cohort,
    number: int,
    seed: int,
    steps: int,
    batch_size: int,
    guidance_scale: float | None = None,
    empty_prompt: bool = False,
) -> tuple[ImageSet, dict[str, Any]]:
    """Sample into a folder, unless exactly these samples are there already.

    Volumes are unconditional; films have the prompts of an even pick of held-out reports (or the
    empty one); translations are of an even pick of held-out conditions.

    Args:
        pipeline: Of diffct.
        model: Its name and hash, as `describe_model` returns them.
        folder: Where to write: 16-bit PNG, or NIfTI in HU.
        cohort: Whose held-out prompts or conditions are used.
        number: How many.
        seed: Seed of the first; number i has `seed + i`.
        steps: Denoising steps.
        batch_size: How many at once.
        guidance_scale: None for the pipeline's default.
        empty_prompt: Whether films have the empty prompt.

    Returns:
        The samples that can be measured, and a description of the pipeline and of how it was run,
        for the protocol.

    Raises:
        ValueError: `folder` holds something else, or all samples hold NaN.
    """
    if not hasattr(pipeline, "sample_many"):
        raise ValueError(
            f"a {type(pipeline).__name__} is none of diffct's pipelines: sample it yourself, and"
            " evaluate the folder of its samples."
        )
    settings: dict[str, Any] = {
        "number": number,
        "seed": seed,
        "steps": steps,
        "scheduler": type(pipeline.scheduler).__name__,
    }
    if guide_of(pipeline) is not None:
        settings["guidance_scale"] = guidance_scale = guidance(pipeline, guidance_scale)
    if guide_of(pipeline) == "prompt":
        settings["prompts"] = "empty" if empty_prompt else "held-out"
    described = {**model, **settings}
    # Through JSON, as it will be read.
    parameters = json.loads(json.dumps({"kind": "samples", **described}))
    if not holds_cohort(folder, parameters):
        with atomic_folder(folder) as partial:
            _write_samples(
                pipeline,
                partial,
                held_out=cohort.held_out,
                number=number,
                guidance_scale=guidance_scale,
                empty_prompt=empty_prompt,
                run={"seed": seed, "batch_size": batch_size, "steps": steps},
            )
            record_cohort(partial, parameters)
    return _read_samples(pipeline, folder, cohort.held_out, number), described


def _read_samples(
    pipeline: DiffusionPipeline, folder: Path, held_out: ImageSet, number: int
) -> ImageSet:
    """Read samples as files, as those of anybody are read."""
    if makes_volumes(pipeline):
        config = pipeline.config
        made = volumes_of_folder(
            folder, title=SAMPLES, window_hu=config.window_hu, spacing_mm=config.spacing_mm
        )
    else:
        made = pictures_of_folder(folder, title=SAMPLES)
    if guide_of(pipeline) == "image":
        # A translation is an image of its condition's patient, for intervals and for privacy.
        places = [_number_of(path) for path in made.files]
        true = held_out.pick(number).of(places)
        made = replace(made, patients=true.patients, rows=true.rows)
    lost = number - len(made)
    made = screen(made)
    if lost:
        note = (
            f"**{lost} of {number} samples cannot be measured**: the model made NaN or infinity of"
            " them. All figures are of the others."
        )
        made = replace(made, notes=(note, *made.notes))
    return made


def _name(number: int) -> str:
    """Name a sample's file, without its ending, as the outputs of pipelines do."""
    return f"sample-{number:04d}"


def _number_of(path: Path) -> int:
    """Return the number of a sample by its file."""
    return int(path.name.split(".")[0].removeprefix("sample-"))


def _write_samples(
    pipeline: DiffusionPipeline,
    folder: Path,
    *,
    held_out: ImageSet,
    number: int,
    guidance_scale: float | None,  # None for volumes only
    empty_prompt: bool,
    run: dict[str, int],
) -> None:
    """Sample into a folder; `run` holds seed, batch size and steps. What holds NaN has no file."""
    pipeline.set_progress_bar_config(disable=True)
    options: dict[str, Any] = {"batch_size": run["batch_size"], "steps": run["steps"]}
    if guide_of(pipeline) is not None:
        options["guidance_scale"] = guidance_scale
    if guide_of(pipeline) == "prompt":
        options["conditions"] = _prompts(held_out, number, empty=empty_prompt)
    elif guide_of(pipeline) == "image":
        shown = read_conditions(held_out.pick(number), pipeline.conditions)
        options["conditions"] = list(shown)
    seeds = range(run["seed"], run["seed"] + number)
    name = "volumes" if makes_volumes(pipeline) else "images"
    for indices, output in pipeline.sample_many(seeds, **options):
        if guide_of(pipeline) == "image":
            # Without a note: protocols tell translations by the hash of their files.
            for index, image in zip(indices, output.films(), strict=True):
                if np.isfinite(image).all():
                    write_png(image, folder / f"{_name(index)}.png")
        else:
            _save_finite(output, name, folder, indices[0])
    if not any(folder.iterdir()):
        raise ValueError(
            f"All {number} samples hold NaN or infinity: the model has diverged, or does not take"
            " the precision that it runs in."
        )


def _save_finite(
    output: CT3DPipelineOutput | TextToImagePipelineOutput, name: str, folder: Path, first: int
) -> None:
    """Save those samples of a batch that are numbers, each under its own number."""
    arrays = np.asarray(output[name])
    for index, array in enumerate(arrays, start=first):
        if np.isfinite(array).all():
            replace(output, **{name: array[None]}).save(folder, first_index=index)


def guidance(pipeline: DiffusionPipeline, scale: float | None) -> float:
    """Return a guidance scale, or the pipeline's default for None: protocols say which it was."""
    if scale is not None:
        return scale
    return signature(pipeline.__call__).parameters["guidance_scale"].default


def default_number(pipeline: DiffusionPipeline, cohort: Cohort) -> int:
    """Return how many samples are drawn if nobody says: all held-out slices are translated."""
    if guide_of(pipeline) == "image":
        return len(cohort.held_out)
    return _VOLUMES if makes_volumes(pipeline) else _IMAGES


def training_cut(pipeline: DiffusionPipeline | None, source: Path | None) -> Cut | None:
    """Return what training cut pictures to, so that evaluation does the same.

    Args:
        pipeline: What was trained, if it is a whole pipeline.
        source: The folder of a pipeline or an autoencoder, if there is one.

    Returns:
        What the run beside it says, otherwise the size that the denoiser was made for; None for
        volumes and if nothing tells.
    """
    if makes_volumes(pipeline):
        return None
    known = None if source is None or not source.is_dir() else source.parent
    settings = None if known is None else read_settings(known)
    size = (getattr(pipeline, "config", {}).get("training") or {}).get("size")
    size = size or (settings.data.get("size") if settings is not None else None)
    if size is not None and len(size) == 2:
        return Cut((int(size[0]), int(size[1])))
    usual = getattr(getattr(pipeline, "unet", None), "config", {}).get("sample_size")
    if pipeline is None or usual is None:
        return None
    height, width = usual if isinstance(usual, Sequence) else (usual, usual)
    factor = pipeline.vae_scale_factor
    # A ControlNet may have been trained at another size than the model that it controls.
    return Cut((height * factor, width * factor), if_large_enough=guide_of(pipeline) == "image")


def _prompts(held_out: ImageSet, number: int, *, empty: bool) -> Sequence[str]:
    """Return the prompts of an even pick of held-out reports, again from the first if too few."""
    if empty or not held_out.rows:
        return [""] * number
    rows = held_out.pick(number).rows
    return [" ".join(rows[index % len(rows)].sentences[:_SENTENCES]) for index in range(number)]
