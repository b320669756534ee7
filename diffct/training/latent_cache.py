"""Caches of latents and text embeddings on disk, encoded once and used in every epoch.

Of each image the posterior's mean and standard deviation are kept, not a sample: every epoch draws
its own latents, as if the autoencoder ran again. The name of a cache file contains a hash of
everything that it depends on, so changed data or weights never use an old file.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from diffct.atomic import atomic_file
from diffct.data.epoch import Epoch, Samples
from diffct.data.images import ImageDataset, check_images
from diffct.data.prompts import Prompts
from diffct.destination import check_writable
from diffct.models.fingerprint import add_weights
from diffct.models.latent_space import LatentSpace
from diffct.models.text_encoding import embed


def fingerprint(*parts: str | nn.Module | Iterable[Path]) -> str:
    """Return a hash of texts, of networks' weights, and of files' names, sizes and times."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode())
        elif isinstance(part, nn.Module):
            add_weights(digest, part)
        else:
            for path in part:  # their contents would take long to read
                facts = path.stat()
                digest.update(f"{path.name} {facts.st_size} {facts.st_mtime_ns}".encode())
        digest.update(b"\0")  # so that "ab", "c" and "a", "bc" differ
    return digest.hexdigest()[:24]


class CachedLatents(Samples):
    """The latent posterior of each image, from a file.

    Args:
        moments: (N, 2, C, h, w) float32: mean and standard deviation.
        images: The images that were encoded, kept for pictures that show the originals.
    """

    def __init__(self, moments: np.ndarray, images: Samples) -> None:
        self.moments = moments
        self.images = images

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the step draws latents from the moments."""

    def __len__(self) -> int:
        return len(self.moments)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        # Copied, since a tensor must not share the read-only memory of the file.
        mean, std = torch.from_numpy(np.array(self.moments[index]))
        return {"latent_mean": mean, "latent_std": std}


def cache_latents(
    images: Samples,
    encode: Callable[[Tensor], tuple[Tensor, Tensor]],
    path: Path,
    *,
    batch_size: int,
    workers: int,
    show_progress: bool,
) -> CachedLatents:
    """Encode images, or open the file that holds them encoded.

    Args:
        images: Yields `{"image": (C, H, W)}`; without augmentation.
        encode: Maps images to the mean and standard deviation of their latents, each (B, C, h, w).
        path: The cache file, ending in .npy; its name must depend on images and encoder.
        batch_size: Images encoded at once.
        workers: Processes that read images.
        show_progress: Show a progress bar.

    Returns:
        The latents, memory-mapped.
    """
    if not path.exists():
        loader = DataLoader(images, batch_size=batch_size, num_workers=workers)
        batches = (torch.stack(encode(batch["image"]), dim=1) for batch in loader)
        _write(batches, path, count=len(images), total=len(loader), show_progress=show_progress)
    return CachedLatents(np.load(path, mmap_mode="r"), images)


def open_images(
    images: ImageDataset,
    space: LatentSpace,
    *,
    accelerator: Accelerator,
    cached: bool,
    folder: Path,
) -> Samples:
    """Check images, and open their cached latents if configured.

    Args:
        images: Images of a split; without augmentation if they are cached.
        space: The latent space; the name of the cache depends on its autoencoder's weights.
        accelerator: The run's accelerator.
        cached: Whether to use cached latents: those that an earlier run left in the folder, or new
            ones.
        folder: Folder of the cache; runs with the same images and autoencoder may share it.

    Returns:
        The images, or their latents, memory-mapped.

    Raises:
        OSError: The folder cannot be written to.
        ValueError: Images cannot be used; up to ten are listed.
    """
    show_progress = accelerator.is_main_process
    if not cached:
        check_images(images, show_progress=show_progress)
        return images
    check_writable(folder)
    paths = [images.manifest.path(row) for row in images.rows]
    path = folder / f"latents-{fingerprint(space.autoencoder, paths, str(list(images.size)))}.npy"
    if not path.exists():
        check_images(images, show_progress=show_progress)

    def encode(batch: Tensor) -> tuple[Tensor, Tensor]:
        with accelerator.autocast():
            return space.moments(batch.to(accelerator.device))

    return cache_latents(
        images, encode, path, batch_size=16, workers=0, show_progress=show_progress
    )


def open_prompts(
    prompts: Prompts,
    text_encoder: PreTrainedModel,
    *,
    accelerator: Accelerator,
    cached_epochs: int,
    folder: Path,
) -> Samples:
    """Open the cached embeddings of prompts if configured.

    Args:
        prompts: The prompts of the images.
        text_encoder: The frozen text encoder; the name of the cache depends on its weights.
        accelerator: The run's accelerator.
        cached_epochs: Number of epochs whose prompts are embedded; 0 for no cache.
        folder: Folder of the cache.

    Returns:
        The prompts, or their embeddings, memory-mapped.
    """
    if not cached_epochs:
        return prompts
    texts = prompts.draws(1 if prompts.fixed else cached_epochs)

    def to_embeddings(words: Sequence[str]) -> Tensor:
        tokens = prompts.tokenize(words)
        tokens = {name: ids.to(accelerator.device) for name, ids in tokens.items()}
        with accelerator.autocast():
            return embed(text_encoder, tokens)

    return cache_embeddings(
        texts,
        to_embeddings,
        folder / f"prompts-{fingerprint(text_encoder, repr(texts))}.npy",
        batch_size=64,
        show_progress=accelerator.is_main_process,
    )


class CachedEmbeddings(Samples):
    """The embedded prompt of each image, from a file; its draws are used in turn, one per epoch.

    Args:
        embeddings: (U, L, C) float16, one for each distinct prompt.
        indices: (draws, N): the index of the embedding of each image in each draw.
    """

    def __init__(self, embeddings: np.ndarray, indices: np.ndarray) -> None:
        self.embeddings = embeddings
        self.indices = indices
        self.epoch = Epoch()

    def set_epoch(self, epoch: int) -> None:
        """Choose the draw of an epoch."""
        self.epoch.set(epoch)

    def __len__(self) -> int:
        return self.indices.shape[1]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        embedding = self.embeddings[self.indices[int(self.epoch) % len(self.indices), index]]
        return {"prompt_embeds": torch.from_numpy(embedding.astype(np.float32))}


def cache_embeddings(
    texts: Sequence[Sequence[str]],
    embed: Callable[[Sequence[str]], Tensor],
    path: Path,
    *,
    batch_size: int,
    show_progress: bool,
) -> CachedEmbeddings:
    """Embed prompts, or open the file that holds them embedded.

    Args:
        texts: For each draw, the prompt of each image.
        embed: Maps prompts to embeddings, (B, L, C).
        path: The cache file, ending in .npy; its name must depend on prompts and encoder.
        batch_size: Prompts embedded at once.
        show_progress: Show a progress bar.

    Returns:
        The embeddings, memory-mapped; each distinct prompt is stored once.
    """
    distinct, indices = np.unique(np.array(texts, dtype=object), return_inverse=True)
    if not path.exists():
        starts = range(0, len(distinct), batch_size)
        batches = (embed(distinct[i : i + batch_size].tolist()).half() for i in starts)
        _write(batches, path, count=len(distinct), total=len(starts), show_progress=show_progress)
    shape = (len(texts), len(texts[0]))
    return CachedEmbeddings(np.load(path, mmap_mode="r"), indices.reshape(shape))


@torch.no_grad()
def _write(
    batches: Iterable[Tensor], path: Path, *, count: int, total: int, show_progress: bool
) -> None:
    """Write batches into one .npy file, with no more than one batch in memory."""
    content = path.name.split("-")[0]  # latents or prompts
    bar = tqdm(
        batches, total=total, desc=f"encoding {content}", unit="batch", disable=not show_progress
    )
    with atomic_file(path) as partial:
        array, start = None, 0
        for batch in bar:
            values = batch.cpu().numpy()
            if array is None:
                array = np.lib.format.open_memmap(
                    partial, mode="w+", dtype=values.dtype, shape=(count, *values.shape[1:])
                )
            array[start : start + len(values)] = values
            start += len(values)
        if array is None:  # no images, as when none are held out
            np.save(partial, np.empty(0, np.float16))
        else:
            array.flush()
