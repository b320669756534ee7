"""Feature networks: the spaces in which distances between sets of images are measured.

A distance is specific to its network: `result_name` writes the network into the figure's name, and
a network records its weights and its preprocessing.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from diffct.metrics.feature_recipes import FEATURE_RECIPES, RANDOM_NETWORKS, FeatureRecipe
from diffct.metrics.feature_weights import file_sha256, fill_weights, read_weights

# How far resampling may exceed [0, 1].
_ROUNDING = 1e-4


class FeatureNetwork:
    """A fixed network that describes an image by d numbers.

    Args:
        name: Its name in results.
        recipe: How it was built.
        module: The network.
        weights_sha256: SHA-256 of the file of its weights; None if they are random.
        device: Where it computes.
    """

    def __init__(
        self,
        name: str,
        *,
        recipe: FeatureRecipe,
        module: nn.Module,
        weights_sha256: str | None,
        device: str | torch.device,
    ) -> None:
        self.name = name
        self.weights_sha256 = weights_sha256
        self.preprocessing: dict[str, Any] = dict(recipe.preprocessing)
        self.dimensions = recipe.dimensions
        self.spatial_dims = recipe.spatial_dims
        self._prepare = recipe.prepare
        self._module = module.requires_grad_(False).eval().to(device)
        self._device = device

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of a batch.

        Args:
            images: (N, 1, H, W), or (N, 1, D, H, W) for a 3D network, in [0, 1].

        Returns:
            (N, d), float32, on the CPU.

        Raises:
            ValueError: The shape or the range is wrong, or a value is not finite.
        """
        self._check(images)
        with torch.inference_mode():
            prepared = self._prepare(images.to(self._device, torch.float32))
            features = self._module(prepared).float().cpu()
        return features.clone()  # an inference-mode tensor could not be changed in place

    def extract(self, batches: Iterable[Tensor], *, show_progress: bool = False) -> Tensor:
        """Return the features of many images.

        Args:
            batches: Batches as `__call__` takes them.
            show_progress: Whether to show a progress bar.

        Returns:
            (N, d) of all batches, float32, on the CPU.

        Raises:
            ValueError: As `__call__`, or there are no images.
        """
        bar = tqdm(batches, desc=self.name, unit="batch", disable=not show_progress)
        features = [self(batch) for batch in bar]
        if not features:
            raise ValueError(f"{self.name}: there are no images.")
        return torch.cat(features)

    def _check(self, images: Tensor) -> None:
        axes = ("D", "H", "W")[-self.spatial_dims :]
        if images.ndim != 2 + self.spatial_dims or images.shape[1] != 1 or 0 in images.shape:
            raise ValueError(
                f"{self.name} takes images (N, 1, {', '.join(axes)}), not {tuple(images.shape)}."
            )
        if not images.isfinite().all():
            raise ValueError(f"{self.name}: an image holds NaN or infinity.")
        low, high = images.min().item(), images.max().item()
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            raise ValueError(f"{self.name} takes values in [0, 1], not [{low:g}, {high:g}].")


def load_feature_network(
    name: str, *, weights: str | Path | None, device: str | torch.device | None = None
) -> FeatureNetwork:
    """Load a feature network from a local file, or make a random one.

    A random network ("random-densenet121-seed0") is initialised by its library: He initialisation,
    which keeps the scale from layer to layer, and batch norms that change nothing. Its distances
    separate images from blurred or noisy ones, though brightness weighs most; compare them only
    with distances in the same network.

    Args:
        name: One of `FEATURE_RECIPES`, or one of `RANDOM_NETWORKS` followed by "-seedN".
        weights: File of the published weights, or of a state dict of the same names, also as
            safetensors; None for a random network.
        device: Where to compute; None for the CPU.

    Returns:
        The network.

    Raises:
        FileNotFoundError: There is no such file; the message says what to download.
        ValueError: The name is unknown, a random network is given weights, or the file does
            not hold the weights of that network.
    """
    random = re.fullmatch(r"(.+)-seed(\d+)", name)
    stand_in = RANDOM_NETWORKS.get(random[1]) if random else None
    recipe = stand_in or FEATURE_RECIPES.get(name)
    if recipe is None:
        accepted = ", ".join([*FEATURE_RECIPES, *(f"{random}-seedN" for random in RANDOM_NETWORKS)])
        raise ValueError(f"There is no feature network {name!r}; accepted: {accepted}.")
    if stand_in is None:
        _require_file(weights, recipe, name=name)
    elif weights is not None:
        raise ValueError(f"{name} is random and takes no weights, not weights={weights}.")
    # The libraries initialise weights with the global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(random[2]) if random and stand_in else 0)
        module = recipe.build()
    digest = None if weights is None else _fill(module, recipe, name=name, path=weights)
    return FeatureNetwork(
        name, recipe=recipe, module=module, weights_sha256=digest, device=device or "cpu"
    )


def result_name(metric: str, network: FeatureNetwork) -> str:
    """Return the name of a figure, such as "FD[xrv-densenet121-all]"."""
    return f"{metric}[{network.name}]"


def _require_file(path: str | Path | None, recipe: FeatureRecipe, *, name: str) -> None:
    """Raise FileNotFoundError, saying what to download, unless there is a file."""
    if path is not None and Path(path).is_file():
        return
    hints = [f"Download {recipe.download} and give its path."] + [
        f"Without it, {random}-seedN is an explicit stand-in: random weights, whose distances"
        " compare only with themselves."
        for random, stand_in in RANDOM_NETWORKS.items()
        if stand_in.build is recipe.build
    ]
    raise FileNotFoundError(
        f"{name} needs its weights, and there is no file weights={path}. {' '.join(hints)}"
    )


def _fill(module: nn.Module, recipe: FeatureRecipe, *, name: str, path: str | Path) -> str:
    """Fill a network from a file and return the file's SHA-256."""
    weights = read_weights(path, classes=recipe.classes())
    needed = {key: value for key, value in weights.items() if not key.startswith(recipe.ignored)}
    try:
        fill_weights(module, needed)
    except ValueError as error:
        raise ValueError(
            f"{path}: does not hold the weights of {name}: {error}. Download {recipe.download}."
        ) from error
    return file_sha256(path)
