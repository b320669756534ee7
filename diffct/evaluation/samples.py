"""Samples of a pipeline as files without loss: what is measured is what would be shared."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from diffct.atomic import atomic_folder
from diffct.data.cohort_folder import holds_cohort, sign_cohort
from diffct.data.radiograph import write_png
from diffct.evaluation.cohorts import Cohort
from diffct.evaluation.conditions import read_conditions
from diffct.evaluation.image_sets import ImageSet, pictures_of_folder, volumes_of_folder
from diffct.evaluation.protocol import describe_pipeline
from diffct.pipelines import CT3DPipeline, FlairToT1Pipeline, TextToImagePipeline
from diffct.pipelines.sampling import batches, generators, sample_images, sample_volumes

_VOLUMES, _IMAGES = 16, 200
_SENTENCES = 4  # of a held-out report, as the training draws them


def make_samples(
    pipeline: DiffusionPipeline,
    name: str,
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
        name: Its folder or Hub id.
        folder: Where to write: 16-bit PNG, or NIfTI in HU.
        cohort: Whose held-out prompts or conditions are used.
        number: How many.
        seed: Seed of the first; number i has `seed + i`.
        steps: Denoising steps.
        batch_size: How many at once.
        guidance_scale: None for the pipeline's default.
        empty_prompt: Whether films have the empty prompt.

    Returns:
        The samples, and a description of the pipeline and of how it was run, for the protocol.

    Raises:
        ValueError: The pipeline is none of diffct's, or `folder` holds something else.
    """
    if not isinstance(pipeline, CT3DPipeline | TextToImagePipeline | FlairToT1Pipeline):
        raise ValueError(f"A {type(pipeline).__name__} is none of diffct's pipelines.")
    settings = {
        "number": number,
        "seed": seed,
        "steps": steps,
        "scheduler": type(pipeline.scheduler).__name__,
    }
    if not isinstance(pipeline, CT3DPipeline):
        if guidance_scale is None:  # the card says which it was
            guidance_scale = signature(pipeline.__call__).parameters["guidance_scale"].default
        settings["guidance_scale"] = guidance_scale
    if isinstance(pipeline, TextToImagePipeline):
        settings["prompts"] = "empty" if empty_prompt else "held-out"
    described = describe_pipeline(name, settings)
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
            sign_cohort(partial, parameters)
    return _read_samples(pipeline, folder, cohort.held_out, number), described


def _read_samples(
    pipeline: DiffusionPipeline, folder: Path, held_out: ImageSet, number: int
) -> ImageSet:
    """Read samples as files, as those of anybody are read."""
    if isinstance(pipeline, CT3DPipeline):
        config = pipeline.config
        return volumes_of_folder(
            folder, title="samples", window_hu=config.window_hu, spacing_mm=config.spacing_mm
        )
    made = pictures_of_folder(folder, title="samples")
    if isinstance(pipeline, FlairToT1Pipeline):
        # A translation is an image of its condition's patient, for intervals and for privacy.
        made = replace(made, patients=held_out.pick(number).patients)
    return made


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
    """Sample into a folder; `run` holds seed, batch size and steps."""
    pipeline.set_progress_bar_config(disable=True)
    if isinstance(pipeline, CT3DPipeline):
        for first, output in sample_volumes(pipeline, number, **run):
            output.save(folder, first_index=first)
    elif isinstance(pipeline, TextToImagePipeline):
        prompts = _prompts(held_out, number, empty=empty_prompt)
        rest = {name: value for name, value in run.items() if name != "seed"}
        seeds = range(run["seed"], run["seed"] + number)
        made = sample_images(pipeline, prompts, guidance_scale=guidance_scale, seeds=seeds, **rest)
        for indices, output in made:
            output.save(folder, first_index=indices[0])
    else:
        images = translate(pipeline, held_out.pick(number), guidance_scale=guidance_scale, **run)
        for index, image in enumerate(images):
            write_png(image[0].numpy(), folder / f"sample-{index:04d}.png")


def translate(
    pipeline: FlairToT1Pipeline,
    images: ImageSet,
    *,
    seed: int,
    batch_size: int,
    steps: int,
    guidance_scale: float = 1.0,
    conditioning_scale: float = 1.0,
) -> Tensor:
    """Translate the conditions of a set, image i with the seed `seed + i`.

    Returns:
        (N, 1, H, W) in [0, 1].
    """
    conditions = torch.stack(list(read_conditions(images, pipeline.conditions)))
    made = []
    for indices in batches(len(conditions), batch_size, description="translating"):
        output = pipeline(
            conditions[indices.start : indices.stop],
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            controlnet_conditioning_scale=conditioning_scale,
            generator=generators([seed + index for index in indices]),
            output_type="pt",
        )
        made.append(output.images.float().cpu())
    return torch.cat(made)


def default_number(pipeline: DiffusionPipeline, cohort: Cohort) -> int:
    """Return how many samples are drawn if nobody says: all held-out slices are translated."""
    if isinstance(pipeline, FlairToT1Pipeline):
        return len(cohort.held_out)
    return _VOLUMES if isinstance(pipeline, CT3DPipeline) else _IMAGES


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe how a pipeline is sampled."""
    parser.add_argument(
        "--num",
        type=int,
        help=f"samples ({_VOLUMES} volumes, {_IMAGES} films, all held-out slices)",
    )
    parser.add_argument("--steps", type=int, default=50, help="denoising steps (50)")
    parser.add_argument("--guidance-scale", type=float, help="of prompts (the pipeline's own)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first sample (0)")
    parser.add_argument("--batch-size", type=int, default=8, help="samples drawn at once (8)")
    parser.add_argument(
        "--empty-prompt", action="store_true", help="films of no prompt, not of held-out reports"
    )


def _prompts(held_out: ImageSet, number: int, *, empty: bool) -> Sequence[str]:
    """Return the prompts of an even pick of held-out reports, again from the first if too few."""
    if empty or not held_out.rows:
        return [""] * number
    rows = held_out.pick(number).rows
    return [" ".join(rows[index % len(rows)].sentences[:_SENTENCES]) for index in range(number)]
