"""Train an autoencoder of radiographs, or of any two-dimensional gray images.

    accelerate launch -q --config_file accelerate_config.yaml train/train_autoencoder.py

trains a small network on synthetic chest films, on any machine. For your own films, prepared by
`diffct prepare`:

    accelerate launch -q --config_file accelerate_config.yaml train/train_autoencoder.py \
        --config train/configs/cxr/autoencoder-published.yaml \
        data.manifest=/path/to/manifest.jsonl \
        objective.perceptual_backbone=/path/to/squeezenet1_1-b8a52dc0.pth \
        output_dir=outputs/my-autoencoder

After a crash, the same command with --resume gives the same weights as a run that was never
interrupted. When training ends, the latents of the training images are measured and the scaling
factor is written into the autoencoder's config.json, where later stages find it.
"""

import diffct  # isort: skip # noqa: F401 - before torch: sets how its threads wait

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from torch import Tensor, nn

from diffct.config import FREE, within
from diffct.data.images import (
    ImageAugmentationConfig,
    ImageDataConfig,
    ImageDataset,
    check_images,
)
from diffct.metrics.lpips import load_perceptual
from diffct.metrics.similarity import ms_ssim_kernel
from diffct.phantoms.bootstrap import load_image_manifest
from diffct.train import CONFIGS
from diffct.training.adversarial import (
    AdversarialStep,
    make_adversarial_step,
    make_discriminator,
)
from diffct.training.checkpoints import Progress
from diffct.training.learner import apply_memory_settings, averaged_weights, make_gradient_step
from diffct.training.loop import Loader
from diffct.training.reconstruction import (
    Reconstruction,
    ReconstructionConfig,
    ReconstructionObjective,
    make_autoencoder,
)
from diffct.training.reconstruction_report import Reconstructions, measure_autoencoders
from diffct.training.run import load_main_first, make_loader, start_run, train_network
from diffct.training.script import run_script
from diffct.training.settings import OptimConfig, RunConfig
from diffct.training.steps import Batch, GradientStep
from diffct.training.summary import Split


@dataclass
class PreviewConfig:
    """Pictures of reconstructions.

    Args:
        images: Number of images in a picture.
    """

    images: int = field(default=4, metadata=within(1))


@dataclass
class AutoencoderConfig(RunConfig):
    """The experiment.

    Args:
        data: The images.
        augmentation: Random changes of the training images.
        autoencoder: Arguments of diffusers' `AutoencoderKL`.
        objective: The loss.
        discriminator: Arguments of MONAI's `PatchDiscriminator`.
        discriminator_optim: Optimiser of the discriminator; its warm-up begins with adversarial
            training.
        scaling_factor: Factor that later stages multiply latents by; None measures it.
        preview: Pictures of reconstructions.
    """

    data: ImageDataConfig = field(default_factory=ImageDataConfig)
    augmentation: ImageAugmentationConfig = field(default_factory=ImageAugmentationConfig)
    autoencoder: dict[str, Any] = field(default_factory=dict)
    objective: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    discriminator: dict[str, Any] = field(default_factory=dict)
    discriminator_optim: OptimConfig = field(default_factory=OptimConfig)
    scaling_factor: float | None = None
    preview: PreviewConfig = field(default_factory=PreviewConfig, metadata=FREE)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    run_script(train, AutoencoderConfig, CONFIGS / "cxr/autoencoder.yaml", __doc__, arguments)


def train(config: AutoencoderConfig, resume: bool) -> None:
    """Train as configured; see `main`."""
    # 1. the networks and the images
    objective = config.objective
    ms_ssim_kernel(config.data.size)  # raises now, not after training, if images are too small
    autoencoder = make_autoencoder(config.autoencoder, size=config.data.size, seed=config.seed)
    discriminator = None
    if objective.adversarial_weight:
        discriminator = make_discriminator(config.discriminator, seed=config.seed)
    perceptual = load_perceptual(objective.perceptual, backbone=objective.perceptual_backbone)
    accelerator = start_run(config, resume=resume)
    augmented, images = load_images(config, accelerator)
    loader = accelerator.prepare(make_loader(config, augmented, accelerator=accelerator))
    step = make_step(
        config,
        accelerator=accelerator,
        autoencoder=autoencoder,
        discriminator=discriminator,
        perceptual=perceptual,
    )

    # 2. train
    reconstructions = Reconstructions(
        accelerator,
        images,
        batch_size=config.train.batch_size,
        workers=config.train.workers,
        max_drawn=config.preview.images,
    )
    train_autoencoder(config, step, loader=loader, reconstructions=reconstructions)

    # 3. measure what was saved
    folder = Path(config.output_dir)
    report = measure_autoencoders(
        folder, reconstructions, size=config.data.size, scaling_factor=config.scaling_factor
    )
    accelerator.print(
        f"Done. Autoencoder: {folder / 'autoencoder'}, figures: {report}, pictures:"
        f" {report.with_suffix('.png')} and, if any, {folder / 'previews'}, loss curve:"
        f" {folder / 'loss.png'}."
    )
    accelerator.end_training()


def train_autoencoder(
    config: AutoencoderConfig,
    step: GradientStep | AdversarialStep,
    *,
    loader: Loader,
    reconstructions: Reconstructions[ImageDataset],
) -> None:
    """Train; its moving average is validated, previewed and saved."""
    accelerator, progress = step.accelerator, Progress()
    network: Reconstruction = accelerator.unwrap_model(step.model)

    def reconstruct(image: Tensor) -> Tensor:
        return network(image)[0]

    def validate() -> float:
        with averaged_weights(step):
            l1, similarity = reconstructions.errors(reconstruct, "validation").mean(dim=0).tolist()
        accelerator.log({"validation_ms_ssim": similarity}, step=progress.update)
        return l1

    images = reconstructions.images
    train_network(
        config,
        step=step,
        loader=loader,
        progress=progress,
        validate=validate if len(images["validation"]) else None,
        preview=lambda path: reconstructions.draw(reconstruct, path),
        save=lambda folder, name: network.autoencoder.save_pretrained(folder),
        product="autoencoder",
        splits=[Split.count(name, each.rows) for name, each in images.items()],
        size=config.data.size,
        images="images",
        others=[step.discriminator] if isinstance(step, AdversarialStep) else [],
    )


def load_images(
    config: AutoencoderConfig, accelerator: Accelerator
) -> tuple[ImageDataset, dict[str, ImageDataset]]:
    """Check every image; return the augmented training images, and each split without changes."""
    manifest = load_main_first(load_image_manifest, config.data, config, accelerator)
    share = manifest.rows[accelerator.process_index :: accelerator.num_processes]
    check_images(
        ImageDataset(manifest, share, size=config.data.size),
        show_progress=accelerator.is_main_process,
    )
    augmented = ImageDataset(
        manifest,
        manifest.split("train"),
        size=config.data.size,
        augmentation=config.augmentation,
        seed=config.seed,
    )
    return augmented, {
        split: ImageDataset(manifest, manifest.split(split), size=config.data.size)
        for split in ("train", "validation", "test")
    }


def make_step(
    config: AutoencoderConfig,
    *,
    accelerator: Accelerator,
    autoencoder: AutoencoderKL,
    discriminator: nn.Module | None,
    perceptual: nn.Module | None,
) -> GradientStep | AdversarialStep:
    """Prepare the networks and build the step: adversarial if there is a discriminator."""
    model = accelerator.prepare(apply_memory_settings(Reconstruction(autoencoder), config.train))
    settings = config.objective
    objective = ReconstructionObjective(
        kl_weight=settings.kl_weight,
        perceptual=perceptual and perceptual.to(accelerator.device),
        perceptual_weight=settings.perceptual_weight,
    )

    def reconstruct(batch: Batch, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
        return objective(model, batch["image"], generator=generator)

    if discriminator is None:
        return make_gradient_step(
            config,
            accelerator=accelerator,
            model=model,
            losses=lambda batch, generator: reconstruct(batch, generator)[0],
        )
    return make_adversarial_step(
        config,
        accelerator=accelerator,
        model=model,
        reconstruct=reconstruct,
        discriminator=accelerator.prepare(apply_memory_settings(discriminator, config.train)),
        discriminator_optim=config.discriminator_optim,
        weight=settings.adversarial_weight,
        start_updates=settings.adversarial_start_updates,
    )


if __name__ == "__main__":
    main()
