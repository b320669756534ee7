"""Train a ControlNet that translates slices of one contrast into another, as FLAIR into T1w.

    accelerate launch -q --config_file accelerate_config.yaml train/train_controlnet.py

trains on the pairs that `diffct prepare brain` left in outputs/brain/slices, on top of the model of
T1w slices that train_text_to_image.py left in outputs/brain/ldm. For your own:

    accelerate launch -q --config_file accelerate_config.yaml train/train_controlnet.py \
        --config train/configs/brain_controlnet_ukb.yaml data.manifest=/path/to/slices \
        base=outputs/my-t1w/pipeline output_dir=outputs/my-translation

The base model is frozen; only the ControlNet learns, and only it is saved during the run. In the
end both are put together in <output_dir>/pipeline. After a crash, the same command with --resume
gives the same weights as a run that was never interrupted.
"""

import diffct  # isort: skip - before torch: it tells how threads wait

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import ControlNetModel
from torch import Tensor

from diffct.atomic import atomic_folder
from diffct.config import PATH, read_command_line, within
from diffct.data.conditions import (
    BrainDataConfig,
    load_brain_pairs,
    pick_evenly,
    slice_geometry,
)
from diffct.data.images import ImageAugmentationConfig
from diffct.data.manifest import Manifest, read_manifest
from diffct.data.pairs import PairedDataset
from diffct.figures.comparison import save_translation
from diffct.metrics.similarity import to_film
from diffct.models.controlled_unet import make_controlnet
from diffct.models.latent_diffusion import LatentDiffusionParts, load_base
from diffct.models.latent_space import LatentSpace
from diffct.models.text_encoding import embed, tokenize
from diffct.pipelines import FlairToT1Pipeline
from diffct.pipelines.scheduler_check import replace_scheduler
from diffct.pipelines.schedulers import find_scheduler
from diffct.training.conflicts import cached_and_augmented, check_conflicts
from diffct.training.denoising import Denoising, by_image
from diffct.training.loop import Events, fit
from diffct.training.objectives import DiffusionObjective, ObjectiveConfig
from diffct.training.run import (
    averaged_weights,
    make_gradient_step,
    make_loader,
    plain_errors,
    restore_run,
    run_facts,
    start_run,
)
from diffct.training.settings import RunConfig
from diffct.training.steps import GradientStep
from diffct.training.summary import Split, announce
from diffct.training.validation import make_validation

CONFIGS = Path(__file__).parent / "configs"


@dataclass
class ControlNetConfig:
    """What is made beside the copy of the base's encoder.

    Args:
        conditioning_embedding_out_channels: Widths of the convolutions that take the conditions to
            the latents' size; each but the first halves it.
    """

    conditioning_embedding_out_channels: list[int] = field(
        default_factory=lambda: [64, 128, 128, 256]
    )


@dataclass
class ControlPromptConfig:
    """The prompt, which is the same for every slice.

    Args:
        constant: Its text, as the base model learnt it.
        empty_probability: Share of empty prompts.
    """

    constant: str = "T1-weighted image of a brain."
    empty_probability: float = field(default=0.1, metadata=within(0, 1))


@dataclass
class PreviewConfig:
    """Pictures of translations during training.

    Args:
        images: How many held-out slices.
        steps: Denoising steps.
        guidance_scale: Weight of the prompt.
        scheduler: What to sample with, e.g. ddim, dpm++ or a diffusers class.
    """

    images: int = field(default=4, metadata=within(1))
    steps: int = field(default=25, metadata=within(1))
    guidance_scale: float = 1.0
    scheduler: str = "ddim"


@dataclass
class ControlTrainingConfig(RunConfig):
    """The experiment.

    Args:
        data: The pairs.
        augmentation: Changes of the training pairs, each done to both images.
        base: Folder or Hub id of the text-to-image pipeline that is steered.
        controlnet: The ControlNet.
        prompt: The prompt.
        objective: The loss.
        preview: Pictures of translations during training.
        license: Licence of the model, for its card, as the Hub names it.
    """

    data: BrainDataConfig = field(default_factory=BrainDataConfig)
    augmentation: ImageAugmentationConfig = field(default_factory=ImageAugmentationConfig)
    base: str = field(default="outputs/brain/ldm/pipeline", metadata=PATH)
    controlnet: ControlNetConfig = field(default_factory=ControlNetConfig)
    prompt: ControlPromptConfig = field(default_factory=ControlPromptConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    preview: PreviewConfig = field(default_factory=PreviewConfig)
    license: str | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    config, resume = read_command_line(
        ControlTrainingConfig,
        default=CONFIGS / "brain_controlnet.yaml",
        description=__doc__,
        arguments=arguments,
    )
    with plain_errors():
        train(config, resume=resume)


def train(config: ControlTrainingConfig, *, resume: bool) -> None:
    """Train as configured; see `main`."""
    # 1. the run
    check_settings(config)
    manifest = read_manifest(config.data.manifest)
    parts = load_base(config.base)
    replace_scheduler(parts.scheduler, config.preview.scheduler, steps=config.preview.steps)
    accelerator, folder = start_run(config, resume=resume), Path(config.output_dir)

    # 2. networks and pairs
    space = LatentSpace(parts.vae.to(accelerator.device))
    controlnet = make_networks(config, parts, space=space, device=accelerator.device)
    pairs = load_splits(config, manifest, space=space, accelerator=accelerator)

    # 3. the step
    loader = make_loader(config, pairs["train"], accelerator=accelerator)
    model, loader = accelerator.prepare(controlnet, loader)
    prompts = embed(parts.text_encoder, tokenize(parts.tokenizer, ["", config.prompt.constant]))
    denoising = Denoising(
        DiffusionObjective(parts.scheduler, **vars(config.objective)),
        space.encode,
        by_image(parts.unet, model, prompts, empty_probability=config.prompt.empty_probability),
        accelerator.autocast,
    )
    step = make_gradient_step(config, accelerator=accelerator, model=model, losses=denoising)
    progress, checkpoints = restore_run(config, accelerator=accelerator, step=step)
    splits = [Split.count(name, manifest.split(name)) for name in pairs]
    announce(
        config, [step], splits=splits, size=config.data.size, images="slices", batches=len(loader)
    )

    # 4. train
    fit(
        accelerator,
        step,
        config=config.train,
        loader=loader,
        progress=progress,
        checkpoints=checkpoints,
        events=make_events(
            config,
            accelerator=accelerator,
            parts=parts,
            controlnet=controlnet,
            validation=pairs["validation"],
            denoising=denoising,
            step=step,
        ),
        folder=folder,
        seed=config.seed,
    )

    # 5. put base and ControlNet together
    if accelerator.is_main_process:
        facts = training_facts(config, manifest, progress.history)
        pipeline = make_pipeline(config, parts, controlnet, manifest=manifest, facts=facts)
        publish(pipeline, folder / "pipeline", step=step)
    accelerator.wait_for_everyone()
    accelerator.print(f"Done. Pipeline: {folder / 'pipeline'}, its ControlNet alone beside it.")
    accelerator.end_training()


def check_settings(config: ControlTrainingConfig) -> None:
    """Raise a ValueError for settings that cannot go together, before anything is made."""
    find_scheduler(config.preview.scheduler)
    data, augmentation = config.data, config.augmentation
    if not data.conditions or len(set(data.conditions)) != len(data.conditions):
        raise ValueError(f"data.conditions={list(data.conditions)}; name each of them once.")
    augmented = bool(augmentation.probability or augmentation.flip_probability)
    check_conflicts([cached_and_augmented(cached=data.cache_latents, augmented=augmented)])


def make_networks(
    config: ControlTrainingConfig,
    parts: LatentDiffusionParts,
    *,
    space: LatentSpace,
    device: torch.device,
) -> ControlNetModel:
    """Freeze the base and copy its encoder into a ControlNet."""
    parts.text_encoder.requires_grad_(False).to(device).eval()
    parts.unet.requires_grad_(False).to(device).eval()
    controlnet = make_controlnet(
        parts.unet,
        conditions=len(config.data.conditions),
        embedding_channels=config.controlnet.conditioning_embedding_out_channels,
        factor=space.factor,
        seed=config.seed,
    )
    if config.train.gradient_checkpointing:
        controlnet.enable_gradient_checkpointing()
        parts.unet.enable_gradient_checkpointing()
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    parts.unet.to(memory_format=layout)
    return controlnet.to(memory_format=layout)


def load_splits(
    config: ControlTrainingConfig,
    manifest: Manifest,
    *,
    space: LatentSpace,
    accelerator: Accelerator,
) -> dict[str, PairedDataset]:
    """Open the training and the validation pairs."""

    def encode(images: Tensor) -> tuple[Tensor, Tensor]:
        with accelerator.autocast():
            return space.moments(images.to(accelerator.device))

    rows = {
        "train": manifest.split("train"),
        "validation": pick_evenly(manifest.split("validation"), config.data.validation_slices),
    }
    if not rows["train"]:
        raise ValueError(f"{config.data.manifest}: no row has the split 'train'.")
    with accelerator.main_process_first():
        return {
            split: load_brain_pairs(
                manifest,
                chosen,
                config=config.data,
                augmentation=config.augmentation if split == "train" else None,
                autoencoder=space.autoencoder,
                encode=encode,
                cache_dir=Path(config.data.cache_dir or Path(config.output_dir) / "cache"),
                seed=config.seed,
                show_progress=accelerator.is_main_process,
            )
            for split, chosen in rows.items()
        }


def make_events(
    config: ControlTrainingConfig,
    *,
    accelerator: Accelerator,
    parts: LatentDiffusionParts,
    controlnet: ControlNetModel,
    validation: PairedDataset,
    denoising: Denoising,
    step: GradientStep,
) -> Events:
    """Say how this system validates, draws previews and saves; all by the moving average."""

    def save(path: Path) -> None:
        if accelerator.is_main_process:
            with averaged_weights(step), atomic_folder(path) as partial:
                controlnet.save_pretrained(partial)

    def preview(path: Path) -> None:
        if accelerator.is_main_process and len(validation):
            with averaged_weights(step), accelerator.autocast():
                draw_preview(make_pipeline(config, parts, controlnet), validation, config, path)
        accelerator.wait_for_everyone()

    return Events(
        validate=make_validation(
            config, accelerator=accelerator, step=step, denoising=denoising, samples=validation
        ),
        preview=preview,
        save=save,
        product="controlnet",
    )


def make_pipeline(
    config: ControlTrainingConfig,
    parts: LatentDiffusionParts,
    controlnet: ControlNetModel,
    *,
    manifest: Manifest | None = None,
    facts: dict[str, Any] | None = None,
) -> FlairToT1Pipeline:
    """Put base and ControlNet together; what inference must know of the slices comes along."""
    geometry = {} if manifest is None else slice_geometry(manifest.split("train"))
    return FlairToT1Pipeline(
        **vars(parts),
        controlnet=controlnet,
        prompt=config.prompt.constant,
        conditions=list(config.data.conditions),
        training=facts,
        **geometry,
    )


def publish(pipeline: FlairToT1Pipeline, path: Path, *, step: GradientStep) -> None:
    """Save a pipeline with the moving average of its ControlNet."""
    with averaged_weights(step), atomic_folder(path) as partial:
        pipeline.save_pretrained(partial, repo_id=path.name)


def training_facts(
    config: ControlTrainingConfig, manifest: Manifest, history: Sequence[dict[str, float]]
) -> dict[str, Any]:
    """Collect what the model card says about this run; no identifiers."""
    synthetic = all(row.facts.get("synthetic") for row in manifest.rows)
    counts = {f"{split} slices": len(manifest.split(split)) for split in ("train", "validation")}
    return run_facts(config, history) | {
        "data": ("synthetic " if synthetic else "the publisher's own ") + "pairs of brain slices",
        "synthetic": synthetic,
        "license": config.license or ("apache-2.0" if synthetic else "other"),
        "size": list(config.data.size),  # the base model's may be another
        "cohort": counts | {"subjects": len({row.patient for row in manifest.rows})},
        "min_snr_gamma": config.objective.min_snr_gamma,
        "diffct_version": diffct.__version__,
    }


def draw_preview(
    pipeline: FlairToT1Pipeline,
    pairs: PairedDataset,
    config: ControlTrainingConfig,
    path: Path,
) -> None:
    """Translate held-out slices with fixed noise and draw them beside the truth."""
    pipeline.scheduler = replace_scheduler(pipeline.scheduler, config.preview.scheduler)
    pipeline.set_progress_bar_config(desc="preview", leave=False)
    number = min(config.preview.images, len(pairs))
    # From all over the split, as neighbouring rows are neighbouring slices.
    chosen = [index * len(pairs) // number for index in range(number)]
    conditions = torch.stack([pairs.second[index]["condition"] for index in chosen])
    images = pairs.first.images if config.data.cache_latents else pairs.first
    truths = torch.stack([images[index]["image"] for index in chosen])
    generated = pipeline(
        conditions,
        num_inference_steps=config.preview.steps,
        guidance_scale=config.preview.guidance_scale,
        generator=[torch.Generator().manual_seed(config.seed) for _ in range(number)],
        output_type="pt",
    ).images
    names = list(config.data.conditions)
    save_translation(conditions, generated, to_film(truths), path, names=names)


if __name__ == "__main__":
    main()
