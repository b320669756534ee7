"""Feature networks: files in the published formats, and the preprocessing of images."""

import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.nn import functional
from torchvision.models import resnet50
from torchxrayvision import models as xrv

from diffct.metrics.feature_recipes import FEATURE_RECIPES, build_medicalnet
from diffct.metrics.features import load_feature_network, result_name
from diffct.phantoms.chest.cohort import draw_patient, draw_truth, render_film

XRV, RADIMAGENET, MEDICALNET = "xrv-densenet121-all", "radimagenet-resnet50", "medicalnet-resnet10"


def films(seeds, size=128) -> torch.Tensor:
    drawn = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        drawn.append(render_film(draw_patient(draw_truth(rng), rng), size=(size, size)))
    return torch.from_numpy(np.stack(drawn))[:, None].float()


def blobs(seed: int, count: int) -> torch.Tensor:
    """Volumes of noise-textured ellipsoids in air."""
    rng = np.random.default_rng(seed)
    points = np.stack(np.meshgrid(*[np.linspace(-1, 1, 32)] * 3, indexing="ij"))
    radii = rng.uniform(0.6, 0.9, (count, 3, 1, 1, 1))
    bodies = ((points / radii) ** 2).sum(1) < 1
    return torch.from_numpy(bodies * rng.uniform(0.4, 0.8, bodies.shape))[:, None].float()


def frechet_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Fréchet distance of two sets of equal size, by products of the centred features."""
    means = (a.mean(0) - b.mean(0)).square().sum()
    a, b = ((x - x.mean(0)).double() / (len(x) - 1) ** 0.5 for x in (a, b))
    traces = a.square().sum() + b.square().sum() - 2 * torch.linalg.matrix_norm(a @ b.T, "nuc")
    return (means + traces).item()


@pytest.fixture(scope="module")
def densenet():
    torch.manual_seed(0)
    return xrv.DenseNet(weights=None, num_classes=18).eval()


@pytest.fixture(scope="module")
def published(densenet, tmp_path_factory):
    """Random weights in TorchXRayVision's format: the whole network, pickled by an old PyTorch."""
    for part in densenet.modules():
        del part._non_persistent_buffers_set  # PyTorch before 1.6 had none
    path = tmp_path_factory.mktemp("xrv") / "densenet.pt"
    torch.save(densenet, path, _use_new_zipfile_serialization=False)
    for part in densenet.modules():
        part._non_persistent_buffers_set = set()
    return path


@pytest.fixture(scope="module")
def radimagenet_weights():
    """Random weights under the names of the published RadImageNet file."""
    generator = torch.Generator().manual_seed(0)
    weights = {}

    def add(conv, norm, inputs, outputs, kernel):
        deviation = (inputs * kernel**2) ** -0.5
        shape = (outputs, inputs, kernel, kernel)
        weights[f"{conv}.weight"] = torch.randn(shape, generator=generator) * deviation
        weights[f"{conv}.bias"] = torch.randn(outputs, generator=generator) * 0.1
        for name, mean in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            drawn = torch.rand(outputs, generator=generator) * 0.1
            weights[f"{norm}.{name}"] = mean + drawn
        weights[f"{norm}.num_batches_tracked"] = torch.tensor(0)

    add("conv1", "bn1", 3, 64, 7)
    inputs = 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        for index in range(blocks):
            block = f"layer{stage}.{index}"
            add(f"{block}.conv1", f"{block}.bn1", inputs, width, 1)
            add(f"{block}.conv2", f"{block}.bn2", width, width, 3)
            add(f"{block}.conv3", f"{block}.bn3", width, width * 4, 1)
            if index == 0:
                add(f"{block}.downsample.0", f"{block}.downsample.1", inputs, width * 4, 1)
            inputs = width * 4
    return weights


def test_films_reach_the_xray_network_as_its_library_wants_them(published, densenet):
    network = load_feature_network(XRV, weights=published)
    seen = []
    densenet_input = network._module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    film = films([0])
    features = network(film)
    densenet_input.remove()
    prepare = FEATURE_RECIPES[XRV].prepare
    assert torch.equal(seen[0], prepare(film)) and seen[0].shape == (1, 1, 224, 224)
    for value, expected in ((1.0, 1024.0), (0.0, -1024.0)):
        constant = prepare(torch.full((1, 1, 128, 128), value))
        torch.testing.assert_close(constant, torch.full((1, 1, 224, 224), expected))
    assert network.preprocessing["intensity"] == "(2 x - 1) * 1024"
    assert "224 x 224" in network.preprocessing["size"]

    # The library itself: its normalisation, its resizing, its features.
    normalised = torch.from_numpy(xrv.utils.normalize(film.numpy(), 1.0))
    resized = xrv.utils.fix_resolution(normalised, 224, densenet)
    with torch.inference_mode():
        expected = densenet.features2(resized)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-2)
    assert features.shape == (1, network.dimensions) and features.dtype == torch.float32
    assert len(network.weights_sha256) == 64
    assert result_name("FD", network) == "FD[xrv-densenet121-all]"


def test_a_tall_film_is_cropped_to_its_middle():
    prepare = FEATURE_RECIPES[XRV].prepare
    film = torch.zeros(1, 1, 300, 224)
    film[:, :, 38:262] = 1
    torch.testing.assert_close(prepare(film), torch.full((1, 1, 224, 224), 1024.0))


@pytest.mark.parametrize("form", ["zip.pt", "legacy.pt", "state.pth", "state.safetensors"])
def test_every_form_of_the_xray_weights_gives_the_same_network(form, densenet, tmp_path):
    path = tmp_path / form
    state = densenet.state_dict() | {"op_threshs": torch.zeros(18)}
    if form.endswith("safetensors"):
        save_file(state, path)
    elif form.startswith("state"):
        torch.save(state, path)
    else:
        torch.save(densenet, path, _use_new_zipfile_serialization=form == "zip.pt")
    found = load_feature_network(XRV, weights=path)._module.state_dict()
    assert len(found) > 700
    assert all(torch.equal(weight, state[name]) for name, weight in found.items())


class Malicious:
    """Runs a command as soon as it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("hidden", [True, False])
def test_malicious_files_are_refused_unread(zipped, hidden, densenet, tmp_path):
    trace = tmp_path / "was_here"
    payload = Malicious(trace)
    if hidden:
        densenet.payload = payload
        payload = densenet
    torch.save(payload, tmp_path / "weights.pt", _use_new_zipfile_serialization=zipped)
    if hidden:
        del densenet.payload
    for name in (XRV, RADIMAGENET):
        with pytest.raises(ValueError, match=r"weights\.pt: is refused"):
            load_feature_network(name, weights=tmp_path / "weights.pt")
    assert not trace.exists()
    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Malicious(trace), protocol=2))
    with pytest.raises(ValueError, match="is refused"):
        load_feature_network(XRV, weights=tmp_path / "weights.pt")
    assert not trace.exists()


def test_missing_files_name_the_download_and_no_random_network_slips_in(tmp_path):
    url = xrv.model_urls["densenet121-res224-all"]["weights_url"]
    for weights in (None, tmp_path / "nowhere.pt"):
        with pytest.raises(FileNotFoundError) as error:
            load_feature_network(XRV, weights=weights)
        assert url in str(error.value) and "random-densenet121-seedN" in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"RadImageNet-ResNet50_notop\.pth"):
        load_feature_network(RADIMAGENET, weights=None)
    with pytest.raises(FileNotFoundError, match=r"resnet_50_23dataset\.pth"):
        load_feature_network("medicalnet-resnet50", weights=None)
    with pytest.raises(ValueError, match=r"accepted: xrv.*random-resnet10-3d-seedN"):
        load_feature_network("inception", weights=None)
    with pytest.raises(ValueError, match="takes no weights"):
        load_feature_network("random-densenet121-seed0", weights=tmp_path / "nowhere.pt")


def test_weights_of_another_network_are_refused(published, tmp_path):
    with pytest.raises(ValueError, match=r"page\.pth: is refused"):
        (tmp_path / "page.pth").write_text("<html>not found</html>")
        load_feature_network(RADIMAGENET, weights=tmp_path / "page.pth")
    # torchvision's own ResNet-50 has no biases in its convolutions.
    torch.save(resnet50(weights=None).state_dict(), tmp_path / "imagenet.pth")
    with pytest.raises(ValueError, match=r"53 missing \(conv1\.bias, …\), 2 unknown \(fc\.weight"):
        load_feature_network(RADIMAGENET, weights=tmp_path / "imagenet.pth")
    with pytest.raises(ValueError, match=r"imagenet\.pth: does not hold the weights of medicalnet"):
        load_feature_network(MEDICALNET, weights=tmp_path / "imagenet.pth")


def reference_radimagenet(weights, images):
    """The published network, written out as functions."""

    def conv(name, x, **options):
        return functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **options)

    def norm(name, x):
        parts = (weights[f"{name}.{part}"] for part in ("running_mean", "running_var"))
        scale = (weights[f"{name}.weight"], weights[f"{name}.bias"])
        return functional.batch_norm(x, *parts, *scale, eps=1.001e-5)

    bgr = images.expand(-1, 3, -1, -1) - torch.tensor([0.406, 0.456, 0.485]).view(3, 1, 1)
    x = norm("bn1", conv("conv1", bgr, stride=2, padding=3)).relu()
    x = functional.max_pool2d(x, 3, stride=2, padding=1)
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for index in range(blocks):
            at, stride = f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1
            h = norm(f"{at}.bn1", conv(f"{at}.conv1", x, stride=stride)).relu()
            h = norm(f"{at}.bn2", conv(f"{at}.conv2", h, padding=1)).relu()
            h = norm(f"{at}.bn3", conv(f"{at}.conv3", h))
            if index == 0:
                x = norm(f"{at}.downsample.1", conv(f"{at}.downsample.0", x, stride=stride))
            x = (x + h).relu()
    return x.mean((2, 3))


def test_radimagenet_is_the_published_network(radimagenet_weights, tmp_path):
    torch.save(radimagenet_weights, tmp_path / "RadImageNet-ResNet50_notop.pth")
    network = load_feature_network(RADIMAGENET, weights=tmp_path / "RadImageNet-ResNet50_notop.pth")
    images = films([0, 1])[:, :, 40:90, 30:94]  # neither square nor resized
    features = network(images)
    assert features.shape == (2, 2048)
    torch.testing.assert_close(features, reference_radimagenet(radimagenet_weights, images))


def test_medicalnet_loads_its_published_format_and_dilates(tmp_path):
    torch.manual_seed(0)
    source = build_medicalnet(10)
    wrapped = {f"module.{name}": weight for name, weight in source.state_dict().items()}
    torch.save({"state_dict": wrapped}, tmp_path / "resnet_10_23dataset.pth")
    network = load_feature_network(MEDICALNET, weights=tmp_path / "resnet_10_23dataset.pth")
    shapes = []
    network._module.layer4.register_forward_hook(lambda _, __, out: shapes.append(out.shape))
    volumes = blobs(0, 2)
    features = network(volumes)
    assert features.shape == (2, 512)
    # An eighth of the resolution, where MONAI's undilated network has a thirty-second.
    assert shapes == [(2, 512, 4, 4, 4)]
    convolutions = [
        (layer.stride[0], layer.dilation[0])
        for name, layer in network._module.layer4.named_modules()
        if isinstance(layer, nn.Conv3d) and "downsample" not in name
    ]
    assert convolutions == [(1, 4), (1, 4)]
    # Standardised volume by volume: scale, other volumes and the last digit of air do not matter.
    torch.testing.assert_close(network(volumes[1:] * 0.5), features[1:], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(network(volumes.clamp_min(1e-3)), features, rtol=0.02, atol=0.02)

    # Any change of the file changes its hash.
    wrapped["module.bn1.bias"][3] += 1e-3
    torch.save({"state_dict": wrapped}, tmp_path / "other.pth")
    other = load_feature_network(MEDICALNET, weights=tmp_path / "other.pth")
    assert other.weights_sha256 != network.weights_sha256


def test_medicalnet50_has_the_published_width():
    with torch.device("meta"):
        network = build_medicalnet(50)
        assert network(torch.zeros(1, 1, 32, 32, 32)).shape == (1, 2048)


@pytest.fixture(scope="module")
def random_films():
    return load_feature_network("random-densenet121-seed0", weights=None)


def test_random_features_of_films_are_seeded_and_do_not_collapse(random_films):
    state = torch.get_rng_state()
    other = load_feature_network("random-densenet121-seed1", weights=None)
    assert torch.equal(torch.get_rng_state(), state)
    assert random_films.weights_sha256 is None
    again = load_feature_network("random-densenet121-seed0", weights=None)
    weight = "features.conv0.weight"
    own, same, different = (
        network._module.state_dict()[weight] for network in (random_films, again, other)
    )
    assert torch.equal(own, same) and not torch.equal(own, different)

    features = random_films.extract(films(range(2)).split(1))
    assert features.isfinite().all()
    assert (features[0] != features[1]).float().mean() > 0.8


def test_random_volume_features_distinguish_volumes():
    network = load_feature_network("random-resnet10-3d-seed0", weights=None)
    volumes = blobs(0, 16)
    blurred = torch.from_numpy(gaussian_filter(volumes.numpy(), (0, 0, 1, 1, 1)))
    own, soft = network.extract(volumes.split(8)), network(blurred[8:])
    halves = frechet_distance(own[:8], own[8:])
    assert frechet_distance(own[:8], soft) > 5 * halves > 0


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((1, 1, 8, 8), 255.0), r"\[0, 1\], not \[255, 255\]"),
        (torch.full((1, 1, 8, 8), -1.0), r"not \[-1, -1\]"),
        (torch.full((1, 1, 8, 8), 7, dtype=torch.uint8), r"not \[7, 7\]"),
        (torch.full((1, 1, 8, 8), float("nan")), "NaN"),
        (torch.ones(1, 3, 8, 8), r"\(N, 1, H, W\), not \(1, 3, 8, 8\)"),
        (torch.ones(1, 1, 8, 8, 8), r"\(N, 1, H, W\)"),
        (torch.ones(0, 1, 8, 8), r"\(N, 1, H, W\)"),
    ],
)
def test_images_of_another_kind_are_refused(random_films, images, message):
    with pytest.raises(ValueError, match=message):
        random_films(images)
    with pytest.raises(ValueError, match="no images"):
        random_films.extract([])
