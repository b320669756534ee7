"""The warm-up of a text encoder with random weights: it learns what images of a prompt look like.

It is trained to predict coarse latents from the prompt alone, by least squares. This is the
denoiser's own task at the noisiest timestep, where the best estimate of x_0 is E[x_0 | prompt], but
it needs no denoiser: a thousand updates take minutes on a CPU. Prompts explain only a small part of
the differences between images, and a random text encoder needs many thousand prompts to learn that
part, far more than a short training of the denoiser uses.
"""

from collections.abc import Iterator

import torch
from accelerate.utils import tqdm  # shows one bar, whatever the number of processes
from diffusers.optimization import get_scheduler
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, mse_loss
from torch.utils.data import DataLoader, default_collate
from transformers import PreTrainedModel

from diffct.data.epoch import Samples
from diffct.models.latent_space import LatentSpace
from diffct.models.text_encoding import embed

GRID = 8
"""Number of rows and columns that latents are averaged to: enough for sides and zones."""
NOISE_FLOOR = 0.1
"""Share of the mean variance that is added to every variance when latents are whitened, so that
directions with little variance, which hold noise, are not amplified to that of the others."""
BATCH_SIZE = 64
LEARNING_RATE, WARMUP_UPDATES = 2e-3, 50


def align_text_encoder(
    text_encoder: PreTrainedModel,
    images: Samples,
    prompts: Samples,
    *,
    space: LatentSpace,
    updates: int,
    seed: int,
) -> None:
    """Train a text encoder, in place, to predict coarse latents of images from their prompts.

    Args:
        text_encoder: The text encoder, on its device.
        images: The training images, or their cached latents.
        prompts: The images' prompts as tokens, drawn anew by `set_epoch`.
        space: The latent space.
        updates: Number of updates, with 64 prompts each; 0 leaves the text encoder unchanged.
        seed: Seed of the order of the prompts, and of the linear layer, which is discarded.
    """
    if updates == 0:
        return
    targets = _coarse_latents(images, space)
    device = text_encoder.device
    # The layer is initialised from the global generator, whose state must not change.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        predict = nn.Linear(text_encoder.config.hidden_size, targets.shape[1]).to(device)
    weights = [*text_encoder.parameters(), *predict.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE)
    schedule = get_scheduler(
        "linear", optimizer, num_warmup_steps=WARMUP_UPDATES, num_training_steps=updates
    )
    batches = _draw_batches(prompts, seed=seed)
    bar = tqdm(range(updates), desc="text encoder", unit="update")
    text_encoder.train()
    for _ in bar:
        tokens, drawn = next(batches)
        tokens = {name: values.to(device) for name, values in tokens.items()}
        # The mean over tokens, since this is what an untrained cross-attention passes on.
        loss = mse_loss(predict(embed(text_encoder, tokens).mean(dim=1)), targets[drawn].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    text_encoder.eval()


def _coarse_latents(images: Samples, space: LatentSpace) -> Tensor:
    """Average the latents of each image to a coarse grid and whiten them, (N, C · 8 · 8).

    Without whitening, the size of the body and the exposure, which prompts do not mention, would
    outweigh every finding. The squared error of whitened latents is a Mahalanobis distance.
    """
    device = space.autoencoder.device
    loader = DataLoader(images, batch_size=16)
    coarse = []
    for batch in tqdm(loader, desc="coarse latents", leave=False):
        latents = space.encode({name: values.to(device) for name, values in batch.items()}, None)
        coarse.append(adaptive_avg_pool2d(latents, GRID).flatten(1).cpu())
    centred = torch.cat(coarse) - torch.cat(coarse).mean(dim=0)
    # Principal directions, in which the latents are uncorrelated, and the variances along them.
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    scales = (variances + NOISE_FLOOR * variances.mean()).clamp(min=1e-6).sqrt()
    whitened = centred @ directions / scales
    return whitened / whitened.std().clamp(min=1e-6)  # the deviation of a single image is 0


def _draw_batches(prompts: Samples, *, seed: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Yield tokens and the images' indices, without end; every epoch draws other prompts."""
    epoch, generator = 0, torch.Generator().manual_seed(seed)
    while True:
        prompts.set_epoch(epoch)
        for indices in torch.randperm(len(prompts), generator=generator).split(BATCH_SIZE):
            yield default_collate([prompts[index] for index in indices.tolist()]), indices
        epoch += 1
