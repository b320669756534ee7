"""LPIPS: the perceptual distance between two images, in the features of a trained network.

Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric".
The package `lpips` brings the small linear heads; the backbone's ImageNet weights are a file that
the user downloads once. Nothing is downloaded here.
"""

import pickle
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

BACKBONES = {
    "squeeze": "SqueezeNet1_1_Weights",
    "alex": "AlexNet_Weights",
    "vgg": "VGG16_Weights",
}
"""Perceptual networks by name, and torchvision's name for the weights of each."""


def load_perceptual(network: str, *, backbone: str | Path | None) -> "PerceptualDistance | None":
    """Load the network of the perceptual loss; arguments and errors as `PerceptualDistance`.

    Returns:
        The network; None for "none".
    """
    return None if network == "none" else PerceptualDistance(network, backbone=backbone)


class PerceptualDistance(nn.Module):
    """LPIPS of single-channel images, in float32, without gradients for its own weights.

    Args:
        network: "squeeze" (used by Pinaya 2023), "alex" or "vgg".
        backbone: File of torchvision's ImageNet weights of that network.

    Raises:
        FileNotFoundError: There is no such file; the message says where to download it.
        ValueError: The network is unknown, the file holds other weights, or lpips is missing.
    """

    def __init__(self, network: str, *, backbone: str | Path | None) -> None:
        super().__init__()
        if network not in BACKBONES:
            accepted = ", ".join(BACKBONES)
            raise ValueError(f"objective.perceptual={network!r}; accepted: {accepted}, none.")
        try:
            import lpips
            import torchvision
        except ImportError as error:
            raise ValueError(
                f"objective.perceptual={network} needs lpips: pip install lpips (or train without:"
                " objective.perceptual=none)"
            ) from error
        url = getattr(torchvision.models, BACKBONES[network]).IMAGENET1K_V1.url
        if backbone is None or not Path(backbone).is_file():
            raise FileNotFoundError(
                f"objective.perceptual={network} needs ImageNet weights, and there is no file"
                f" objective.perceptual_backbone={backbone}. Download {url} and give its path, or"
                " train without: objective.perceptual=none"
            )
        with warnings.catch_warnings():
            # lpips calls torchvision by an older signature.
            warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
            # A random backbone, since lpips would download its weights.
            self.lpips = lpips.LPIPS(net=network, pnet_rand=True, verbose=False)
        try:
            weights = torch.load(backbone, map_location="cpu", weights_only=True)
            # lpips groups torchvision's layers in slices: "slice2.3.bias" is "features.3.bias".
            own = {
                name: weights[f"features.{name.partition('.')[2]}"]
                for name in self.lpips.net.state_dict()
            }
            self.lpips.net.load_state_dict(own)
        except (KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"{backbone}: does not hold torchvision's weights for"
                f" objective.perceptual={network}; download {url}."
            ) from error
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Return the mean distance of a batch; arguments as `per_image`.

        Returns:
            Scalar, float32.
        """
        return self.per_image(image, reference).mean()

    def per_image(self, image: Tensor, reference: Tensor) -> Tensor:
        """Return the distance of each image.

        Args:
            image: (B, 1, H, W) in [-1, 1], the range that LPIPS expects.
            reference: Likewise.

        Returns:
            (B,), float32.
        """
        with torch.autocast(image.device.type, enabled=False):
            images = (x.float().expand(-1, 3, -1, -1) for x in (image, reference))
            return self.lpips(*images).flatten()
