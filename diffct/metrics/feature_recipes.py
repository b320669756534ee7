"""The feature networks: how each is built, what it takes, and where its weights are published.

Nothing is downloaded here.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

_XRV_SIDE = 224
_RANDOM_SIDES = (64, 224)
_XRV_RELEASE = "https://github.com/mlmed/torchxrayvision/releases/download/v1/"
_HUB = "https://huggingface.co/"
# Blue, green, red, as the network's first convolution expects them.
_RADIMAGENET_MEAN = (0.406, 0.456, 0.485)


@dataclass(frozen=True)
class FeatureRecipe:
    """One published feature network.

    Attributes:
        build: Returns the network with its default initialisation; it maps what `prepare` returns
            to (N, d).
        prepare: Maps images in [0, 1], (N, 1, *), to what the network was trained on.
        preprocessing: What `prepare` does, in words for the protocol.
        spatial_dims: 2 for images, 3 for volumes.
        dimensions: Features per image, d.
        download: Address of the weights.
        ignored: Prefixes of the names of published weights that the features do not need.
        classes: Returns the classes to unpickle, if the network is published as a whole pickle.
    """

    build: Callable[[], nn.Module]
    prepare: Callable[[Tensor], Tensor]
    preprocessing: dict[str, Any]
    spatial_dims: Literal[2, 3]
    dimensions: int
    download: str
    ignored: tuple[str, ...] = ()
    classes: Callable[[], list[type]] = list


def build_densenet121() -> nn.Module:
    """Return TorchXRayVision's DenseNet-121 without its classifier."""
    with warnings.catch_warnings():  # importing it silences all warnings of the process
        from torchxrayvision.models import DenseNet

    network = DenseNet(weights=None)
    network.classifier = nn.Identity()
    return network


def densenet_classes() -> list[type]:
    """Return the classes in TorchXRayVision's pickled DenseNets."""
    with warnings.catch_warnings():
        from torchxrayvision import models

    own = [models.DenseNet, models._DenseBlock, models._DenseLayer, models._Transition]
    layers = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Linear]
    return [*own, *layers, nn.Sequential]


def prepare_film(images: Tensor) -> Tensor:
    """Crop films to their middle square, resize them and map [0, 1] to [-1024, 1024].

    Source: TorchXRayVision 1.5.7, `XRayCenterCrop`, `utils.fix_resolution`, `utils.normalize`.
    """
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = height // 2 - side // 2, width // 2 - side // 2
    square = images[..., top : top + side, left : left + side]
    resized = functional.interpolate(square, [_XRV_SIDE] * 2, mode="bilinear", antialias=True)
    return (2 * resized - 1) * 1024


def prepare_whole(images: Tensor) -> Tensor:
    """Pad images to squares with black, resize unusual sides, and map [0, 1] to [-1, 1]."""
    height, width = images.shape[-2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = functional.pad(images, (left, side - width - left, top, side - height - top))
    wanted = min(max(side, _RANDOM_SIDES[0]), _RANDOM_SIDES[1])
    if wanted != side:
        square = functional.interpolate(square, [wanted] * 2, mode="bilinear", antialias=True)
    return 2 * square - 1


def build_radimagenet() -> nn.Module:
    """Return RadImageNet's ResNet-50, as translated from Keras.

    Keras' network differs from torchvision's: its convolutions have biases, its batch norms another
    epsilon, and a block has its stride in the first convolution, not in the second. A stride has no
    weights, so they would also fit a network with torchvision's strides, and give other features.

    Source: Warvito/radimagenet-models, `radimagenet_models/models/resnet.py` at f60d7c1.
    """
    from torchvision.models import resnet50

    network = resnet50(weights=None, norm_layer=partial(nn.BatchNorm2d, eps=1.001e-5))
    network.fc = nn.Identity()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.bias = nn.Parameter(torch.zeros(layer.out_channels))
    for stage in (network.layer2, network.layer3, network.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    return network


def prepare_radimagenet(images: Tensor) -> Tensor:
    """Repeat gray images as blue, green and red, and subtract the means.

    Source: Warvito/generative_brain_controlnet, `src/python/testing/compute_fid.py` at 57c6446; it
    neither resizes nor divides by a standard deviation.
    """
    return images - images.new_tensor(_RADIMAGENET_MEAN)[:, None, None]


def build_medicalnet(depth: Literal[10, 50]) -> nn.Module:
    """Return MedicalNet's 3D ResNet, averaged over space.

    The weights also fit MONAI's `resnet10` and `resnet50`, but these halve the resolution in the
    last two stages, where MedicalNet dilates the convolutions.

    Source: Tencent/MedicalNet, `med3d/models/resnet.py` at 34b9bb2.
    """
    from monai.networks.nets import resnet10, resnet50

    network = {10: resnet10, 50: resnet50}[depth](
        spatial_dims=3,
        n_input_channels=1,
        conv1_t_stride=2,
        feed_forward=False,
        shortcut_type="B",
        bias_downsample=False,
    )
    for stage, dilation in ((network.layer3, 2), (network.layer4, 4)):
        for layer in stage.modules():
            if isinstance(layer, nn.Conv3d):
                layer.stride = (1, 1, 1)
                if layer.kernel_size == (3, 3, 3):
                    layer.dilation = layer.padding = (dilation,) * 3
    return network


def prepare_medicalnet(volumes: Tensor) -> Tensor:
    """Standardise each volume by the mean and standard deviation of all its voxels.

    MedicalNet's data loader (`datasets/brains18.py`) uses only the voxels above 0, and puts
    random noise in the others. The features then depend on whether air is exactly 0: raising it to
    0.001, which is invisible, moved the features (of random weights) of CT phantoms by 30 times the
    Fréchet distance between two halves of the set.

    Source: MONAI, `losses.perceptual.medicalnet_intensity_normalisation`, here volume by volume.
    """
    axes = (1, 2, 3, 4)
    centred = volumes - volumes.mean(axes, keepdim=True)
    return centred / centred.std(axes, keepdim=True).clamp_min(1e-5)


_MEDICALNET_PREPROCESSING = {
    "input": "(N, 1, D, H, W) in [0, 1]",
    "size": "as given",
    "intensity": "(x - mean) / deviation of each volume",
    "features": "mean over space of the last feature map",
}

FEATURE_RECIPES = {
    "xrv-densenet121-all": FeatureRecipe(
        build=build_densenet121,
        prepare=prepare_film,
        preprocessing={
            "input": "(N, 1, H, W) in [0, 1]",
            "size": f"middle square, to {_XRV_SIDE} x {_XRV_SIDE}, bilinear, antialiased",
            "intensity": "(2 x - 1) * 1024",
            "features": "mean over space of the last feature map after ReLU",
        },
        spatial_dims=2,
        dimensions=1024,
        download=_XRV_RELEASE + "nih-pc-chex-mimic_ch-google-openi-kaggle-densenet121-d121-tw-lr001"
        "-rot45-tr15-sc15-seed0-best.pt",
        ignored=("classifier.", "op_threshs"),
        classes=densenet_classes,
    ),
    "radimagenet-resnet50": FeatureRecipe(
        build=build_radimagenet,
        prepare=prepare_radimagenet,
        preprocessing={
            "input": "(N, 1, H, W) in [0, 1]",
            "size": "as given",
            "intensity": f"repeated to (blue, green, red), minus {_RADIMAGENET_MEAN}",
            "features": "mean over space of the last feature map",
        },
        spatial_dims=2,
        dimensions=2048,
        download=_HUB + "MONAI/checkpoints/resolve/main/RadImageNet-ResNet50_notop.pth",
    ),
    "medicalnet-resnet10": FeatureRecipe(
        build=partial(build_medicalnet, 10),
        prepare=prepare_medicalnet,
        preprocessing=_MEDICALNET_PREPROCESSING,
        spatial_dims=3,
        dimensions=512,
        download=_HUB
        + "TencentMedicalNet/MedicalNet-Resnet10/resolve/main/resnet_10_23dataset.pth",
    ),
    "medicalnet-resnet50": FeatureRecipe(
        build=partial(build_medicalnet, 50),
        prepare=prepare_medicalnet,
        preprocessing=_MEDICALNET_PREPROCESSING,
        spatial_dims=3,
        dimensions=2048,
        download=_HUB
        + "TencentMedicalNet/MedicalNet-Resnet50/resolve/main/resnet_50_23dataset.pth",
    ),
}
"""Published networks by their names in results."""

RANDOM_NETWORKS = {
    "random-densenet121": replace(
        FEATURE_RECIPES["xrv-densenet121-all"],
        prepare=prepare_whole,
        preprocessing={
            "input": "(N, 1, H, W) in [0, 1]",
            "size": f"padded to a square; resized if its side is not in {_RANDOM_SIDES}",
            "intensity": "2 x - 1",
            "features": "mean over space of the last feature map after ReLU",
        },
    ),
    "random-resnet10-3d": FEATURE_RECIPES["medicalnet-resnet10"],
}
"""Stand-ins with random weights, each with the architecture of a published network."""
