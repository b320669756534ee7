"""Train a latent diffusion model of images from text, as of radiographs from their reports.

    accelerate launch -q --config_file accelerate_config.yaml train/train_text_to_image.py

trains a small network on synthetic chest films, on any machine, in the latent space of the
autoencoder that train_autoencoder.py left in outputs/cxr-autoencoder. For your own films:

    accelerate launch -q --config_file accelerate_config.yaml train/train_text_to_image.py \
        --config train/configs/cxr_ldm_mimic.yaml data.manifest=/path/to/manifest.jsonl \
        autoencoder=outputs/my-autoencoder/autoencoder output_dir=outputs/my-films

To fine-tune an existing text-to-image pipeline by LoRA instead: initial_pipeline=<folder or Hub id>
lora.rank=16. After a crash, the same command with --resume gives the same weights as a run that was
never interrupted.
"""

import diffct  # isort: skip - before torch: it tells how threads wait

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from torch import Tensor

from diffct.atomic import atomic_folder
from diffct.config import PATH, read_command_line, within
from diffct.data.images import ImageAugmentationConfig
from diffct.data.manifest import Manifest
from diffct.data.prompts import (
    Encoders,
    PairedDataset,
    PromptConfig,
    TextToImageDataConfig,
    load_pairs,
)
from diffct.figures.contact_sheet import save_contact_sheet
from diffct.models.latent_diffusion import (
    SMALL,
    LatentDiffusionParts,
    TextEncoderConfig,
    load_autoencoder,
    load_parts,
    make_text_encoder,
    make_unet,
)
from diffct.models.latent_space import LatentSpace
from diffct.models.text_conditioned import TextConditionedUNet
from diffct.models.text_encoding import embed, tokenize
from diffct.phantoms.bootstrap import load_image_manifest
from diffct.pipelines import CXRTextToImagePipeline, TextToImagePipeline
from diffct.pipelines.scheduler_check import make_scheduler, replace_scheduler
from diffct.pipelines.schedulers import find_scheduler
from diffct.sections import check_arguments, section_named
from diffct.training.checkpoints import Progress
from diffct.training.conflicts import check_text_to_image
from diffct.training.denoising import Denoising, by_prompt
from diffct.training.loop import Events, fit
from diffct.training.lora import LoRAConfig, add_lora, save_lora
from diffct.training.objectives import DiffusionObjective, ObjectiveConfig
from diffct.training.run import (
    averaged_weights,
    has_begun,
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
from diffct.training.text_alignment import align_text_encoder
from diffct.training.validation import make_validation

CONFIGS = Path(__file__).parent / "configs"
PIPELINES = {kind.__name__: kind for kind in (CXRTextToImagePipeline, TextToImagePipeline)}


@dataclass
class PreviewConfig:
    """Pictures of samples during training.

    Args:
        prompts: One film each; at least one.
        steps: Denoising steps.
        guidance_scale: Weight of the prompt.
        scheduler: What to sample with, e.g. ddim, dpm++ or a diffusers class.
    """

    prompts: list[str] = field(default_factory=lambda: ["", "No acute cardiopulmonary process."])
    steps: int = field(default=25, metadata=within(1))
    guidance_scale: float = 7.0
    scheduler: str = "ddim"


@dataclass
class TextToImageConfig(RunConfig):
    """The experiment.

    Args:
        data: The films.
        augmentation: Changes of the training films; never a flip where reports tell sides.
        prompt: How prompts are drawn from reports.
        autoencoder: Folder or Hub id of the autoencoder.
        text_encoder: The text encoder.
        unet: Arguments of `UNet2DConditionModel`; what the other parts decide is left out.
        scheduler: A diffusers scheduler configuration, its class under `_class_name`.
        objective: The loss.
        initial_pipeline: A text-to-image pipeline whose components to start from, in place of
            `autoencoder`, `text_encoder.name`, `unet` and `scheduler`.
        lora: Low-rank fine-tuning of `initial_pipeline`.
        preview: Pictures of samples during training.
        pipeline: What is saved; "TextToImagePipeline" for images other than chest films.
        images: What they are, for the model's card.
        license: Licence of the model, for its card, as the Hub names it.
    """

    data: TextToImageDataConfig = field(default_factory=TextToImageDataConfig)
    augmentation: ImageAugmentationConfig = field(
        default_factory=lambda: ImageAugmentationConfig(flip_probability=0.0)
    )
    prompt: PromptConfig = field(default_factory=PromptConfig)
    autoencoder: str = field(default="outputs/cxr-autoencoder/autoencoder", metadata=PATH)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    unet: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    initial_pipeline: str | None = field(default=None, metadata=PATH)
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    preview: PreviewConfig = field(default_factory=PreviewConfig)
    pipeline: str = "CXRTextToImagePipeline"
    images: str = "chest films with reports"
    license: str | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    config, resume = read_command_line(
        TextToImageConfig,
        default=CONFIGS / "cxr_ldm.yaml",
        description=__doc__,
        arguments=arguments,
    )
    with plain_errors():
        train(config, resume=resume)


def train(config: TextToImageConfig, *, resume: bool) -> None:
    """Train as configured; see `main`."""
    check_settings(config)
    # 1. the run, films and components
    accelerator = start_run(config, resume=resume)
    folder = Path(config.output_dir)
    with accelerator.main_process_first():
        manifest = load_image_manifest(
            config.data, output=folder, seed=config.seed, main=accelerator.is_main_process
        )
    parts = make_parts(config, manifest)
    replace_scheduler(parts.scheduler, config.preview.scheduler, steps=config.preview.steps)
    space = LatentSpace(parts.vae.to(accelerator.device))
    network = make_network(config, parts, accelerator)
    pairs = load_splits(config, manifest, parts=parts, space=space, accelerator=accelerator)
    teach_words(config, parts, pairs["train"], space)
    loader = make_loader(config, pairs["train"], accelerator=accelerator)

    # 2. the step
    model, loader = accelerator.prepare(network, loader)
    denoising = Denoising(
        DiffusionObjective(parts.scheduler, **vars(config.objective)),
        space.encode,
        by_prompt(model, None if config.text_encoder.train else parts.text_encoder),
        accelerator.autocast,
    )
    step = make_gradient_step(config, accelerator=accelerator, model=model, losses=denoising)
    progress, checkpoints = restore_run(config, accelerator=accelerator, step=step)
    splits = [Split.count(name, manifest.split(name)) for name in pairs]
    announce(
        config, [step], splits=splits, size=config.data.size, images="images", batches=len(loader)
    )

    # 3. train
    events = make_events(
        config,
        accelerator=accelerator,
        manifest=manifest,
        parts=parts,
        validation=pairs["validation"],
        denoising=denoising,
        step=step,
        progress=progress,
    )
    fit(
        accelerator,
        step,
        config=config.train,
        loader=loader,
        progress=progress,
        checkpoints=checkpoints,
        events=events,
        folder=folder,
        seed=config.seed,
    )
    accelerator.print(f"Done. Model: {folder / events.product}; loss and previews beside it.")
    accelerator.end_training()


def check_settings(config: TextToImageConfig) -> None:
    """Raise a ValueError for settings that cannot go together, before anything is made."""
    find_scheduler(config.preview.scheduler)
    if config.pipeline not in PIPELINES:
        raise ValueError(f"pipeline={config.pipeline}; accepted are {', '.join(PIPELINES)}.")
    check_text_to_image(
        cached_latents=config.data.cache_latents,
        cached_prompts=bool(config.data.cache_prompts),
        augmented=config.augmentation.probability > 0,
        flipped=config.augmentation.flip_probability > 0,
        constant_prompt=config.prompt.constant is not None,
        text_encoder=config.text_encoder,
        has_base=config.initial_pipeline is not None,
        lora=config.lora,
    )


def make_parts(config: TextToImageConfig, manifest: Manifest) -> LatentDiffusionParts:
    """Take the components over from `initial_pipeline`, or make them to fit each other."""
    if config.initial_pipeline is not None:
        parts = load_parts(config.initial_pipeline)
        if config.lora.rank:
            add_lora(parts.unet, config.lora)
        return parts
    scheduler = make_scheduler(config.scheduler, default="ddim")
    check_arguments("unet", config.unet, UNet2DConditionModel)
    vae = load_autoencoder(config.autoencoder)
    sentences = [sentence for row in manifest.split("train") for sentence in row.sentences]
    sentences = sentences if config.prompt.constant is None else [config.prompt.constant]
    tokenizer, text_encoder = make_text_encoder(config.text_encoder, sentences, seed=config.seed)
    with section_named("unet"):
        unet = make_unet(
            config.unet,
            space=LatentSpace(vae),
            size=config.data.size,
            width=text_encoder.config.hidden_size,
            seed=config.seed,
        )
    return LatentDiffusionParts(vae, text_encoder, tokenizer, unet, scheduler)


def make_network(
    config: TextToImageConfig, parts: LatentDiffusionParts, accelerator: Accelerator
) -> TextConditionedUNet:
    """Put together what learns; a frozen text encoder stays out, and out of the checkpoints."""
    learns = config.text_encoder.train
    parts.text_encoder.requires_grad_(learns).to(accelerator.device)
    if config.train.gradient_checkpointing:
        parts.unet.enable_gradient_checkpointing()
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    network = TextConditionedUNet(parts.unet, text_encoder=parts.text_encoder if learns else None)
    return network.to(memory_format=layout)


def load_splits(
    config: TextToImageConfig,
    manifest: Manifest,
    *,
    parts: LatentDiffusionParts,
    space: LatentSpace,
    accelerator: Accelerator,
) -> dict[str, PairedDataset]:
    """Open the training and the validation films with their prompts."""

    def to_tokens(prompts: Sequence[str]) -> dict[str, Tensor]:
        return tokenize(parts.tokenizer, prompts)

    def to_moments(images: Tensor) -> tuple[Tensor, Tensor]:
        with accelerator.autocast():
            return space.moments(images.to(accelerator.device))

    def to_embeddings(prompts: Sequence[str]) -> Tensor:
        tokens = {name: ids.to(accelerator.device) for name, ids in to_tokens(prompts).items()}
        with accelerator.autocast():
            return embed(parts.text_encoder, tokens)

    encoders = Encoders(space.autoencoder, to_moments, parts.text_encoder, to_tokens, to_embeddings)
    with accelerator.main_process_first():
        return {
            split: load_pairs(
                manifest,
                manifest.split(split),
                data=config.data,
                prompt=config.prompt,
                augmentation=config.augmentation if split == "train" else None,
                encoders=encoders,
                cache_dir=Path(config.data.cache_dir or Path(config.output_dir) / "cache"),
                seed=config.seed,
                fixed=split != "train",
                show_progress=accelerator.is_main_process,
            )
            for split in ("train", "validation")
        }


def teach_words(
    config: TextToImageConfig, parts: LatentDiffusionParts, pairs: PairedDataset, space: LatentSpace
) -> None:
    """Give a text encoder that was just made its first lesson, unless this run has begun."""
    made = config.initial_pipeline is None and config.text_encoder.name == SMALL
    if made and not has_begun(Path(config.output_dir)):
        align_text_encoder(
            parts.text_encoder,
            pairs.first,
            pairs.second,
            space=space,
            updates=config.text_encoder.small.alignment_updates,
            seed=config.seed,
        )


def make_events(
    config: TextToImageConfig,
    *,
    accelerator: Accelerator,
    manifest: Manifest,
    parts: LatentDiffusionParts,
    validation: PairedDataset,
    denoising: Denoising,
    step: GradientStep,
    progress: Progress,
) -> Events:
    """Say how this system validates, draws previews and saves; all by the moving average."""

    def pipeline(facts: dict[str, Any] | None = None) -> TextToImagePipeline:
        # The prepared module shares its parts: they hold what it learns.
        return PIPELINES[config.pipeline](**vars(parts), training=facts)

    def save(path: Path) -> None:
        if accelerator.is_main_process:
            with averaged_weights(step), atomic_folder(path) as partial:
                if config.lora.rank:
                    save_lora(parts.unet, partial)
                else:
                    facts = training_facts(config, manifest, progress.history)
                    pipeline(facts).save_pretrained(partial, repo_id=path.name)

    def preview(path: Path) -> None:
        if accelerator.is_main_process:
            with averaged_weights(step), accelerator.autocast():
                draw_preview(pipeline(), config, path)
        accelerator.wait_for_everyone()

    return Events(
        validate=make_validation(
            config, accelerator=accelerator, step=step, denoising=denoising, samples=validation
        ),
        preview=preview,
        save=save,
        product="lora" if config.lora.rank else "pipeline",
    )


def training_facts(
    config: TextToImageConfig, manifest: Manifest, history: Sequence[dict[str, float]]
) -> dict[str, Any]:
    """Collect what the model card says about this run; no identifiers."""
    synthetic = all(row.facts.get("synthetic") for row in manifest.rows)
    counts = {f"{split} images": len(manifest.split(split)) for split in ("train", "validation")}
    return run_facts(config, history) | {
        "images": config.images,
        "data": ("synthetic " if synthetic else "the publisher's own ") + config.images,
        "synthetic": synthetic,
        "license": config.license or ("apache-2.0" if synthetic else "other"),
        "cohort": counts | {"patients": len({row.patient for row in manifest.rows})},
        "min_snr_gamma": config.objective.min_snr_gamma,
        "diffct_version": diffct.__version__,
    }


def draw_preview(pipeline: TextToImagePipeline, config: TextToImageConfig, path: Path) -> None:
    """Sample the preview's prompts, distinct ones with the same noise, as one picture."""
    pipeline.scheduler = replace_scheduler(pipeline.scheduler, config.preview.scheduler)
    pipeline.set_progress_bar_config(desc="preview", leave=False)
    prompts = list(config.preview.prompts)
    seeds = [config.seed + prompts[:place].count(prompt) for place, prompt in enumerate(prompts)]
    films = pipeline(
        prompts,
        num_inference_steps=config.preview.steps,
        guidance_scale=config.preview.guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="np",
    ).images
    save_contact_sheet(list(films[..., 0]), path, titles=prompts)


if __name__ == "__main__":
    main()
