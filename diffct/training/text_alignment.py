"""A first lesson for a text encoder that knows nothing: how films look on average, given the words.

It predicts coarse latents from the prompt alone, by least squares. That is the denoiser's own task
where all is noise, for E[x_0 | prompt] is what remains to be known there. But it takes no denoiser:
a thousand updates take minutes on a CPU. What words explain is a small part of what films differ
in, and a random text encoder takes many thousand prompts to find it, far more than a short training
of the denoiser shows.
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
"""Latents are averaged to this many rows and columns: enough for sides and zones."""
NOISE_FLOOR = 0.1
"""Directions in which films vary less than this share of the mean variance are not made as large
as the others when latents are whitened: they hold noise."""
BATCH_SIZE = 64
LEARNING_RATE, WARMUP_UPDATES = 2e-3, 50


def align_text_encoder(
    text_encoder: PreTrainedModel,
    films: Samples,
    prompts: Samples,
    *,
    space: LatentSpace,
    updates: int,
    seed: int,
) -> None:
    """Teach a text encoder, in place, to predict coarse latents of films from their prompts.

    Args:
        text_encoder: Learns, on its device.
        films: The training films, or their cached latents.
        prompts: The films' prompts as tokens, drawn anew by `set_epoch`.
        space: The latent space.
        updates: Of 64 prompts each; 0 leaves the text encoder as it is.
        seed: Of the order of the prompts, and of the linear layer, which is not kept.
    """
    if updates == 0:
        return
    targets = _coarse_latents(films, space)
    device = text_encoder.device
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
        # The mean over all tokens is what a cross-attention that knows nothing yet passes on.
        loss = mse_loss(predict(embed(text_encoder, tokens).mean(dim=1)), targets[drawn].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    text_encoder.eval()


def _coarse_latents(films: Samples, space: LatentSpace) -> Tensor:
    """Average the latents of each film to a coarse grid and whiten them, (N, C · 8 · 8).

    Unwhitened, the size of the body and the exposure, of which words say nothing, would outweigh
    every finding: what is left unexplained is thus measured by Mahalanobis distance.
    """
    device = space.autoencoder.device
    loader = DataLoader(films, batch_size=16)
    coarse = []
    for batch in tqdm(loader, desc="coarse latents", leave=False):
        latents = space.encode({name: values.to(device) for name, values in batch.items()}, None)
        coarse.append(adaptive_avg_pool2d(latents, GRID).flatten(1).cpu())
    centred = torch.cat(coarse) - torch.cat(coarse).mean(dim=0)
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    scales = (variances + NOISE_FLOOR * variances.mean()).clamp(min=1e-6).sqrt()
    whitened = centred @ directions / scales
    return whitened / whitened.std().clamp(min=1e-6)  # one film alone has no deviation


def _draw_batches(prompts: Samples, *, seed: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Yield tokens and the films' numbers, without end; every epoch draws other prompts."""
    epoch, generator = 0, torch.Generator().manual_seed(seed)
    while True:
        prompts.set_epoch(epoch)
        for films in torch.randperm(len(prompts), generator=generator).split(BATCH_SIZE):
            yield default_collate([prompts[film] for film in films.tolist()]), films
        epoch += 1
