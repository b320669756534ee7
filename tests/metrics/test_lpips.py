"""LPIPS from local files: torchvision's real key names, nothing downloaded, clear errors."""

import pytest
import torch
import torchvision

from diffct.metrics.lpips import load_perceptual

lpips = pytest.importorskip("lpips", reason="lpips is not installed: pip install lpips")

NETWORKS = {"squeeze": "squeezenet1_1", "alex": "alexnet", "vgg": "vgg16"}


@pytest.fixture(autouse=True)
def no_download(monkeypatch):
    """Make every download fail."""

    def refuse(*_, **__):
        raise AssertionError("something was to be downloaded")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


@pytest.fixture(scope="module")
def squeeze(tmp_path_factory):
    """Random weights in the file format and with the key names of torchvision's download."""
    torch.manual_seed(0)
    network = torchvision.models.squeezenet1_1(weights=None)
    path = tmp_path_factory.mktemp("weights") / "squeezenet1_1-random.pth"
    torch.save(network.state_dict(), path)
    return path


def images(seed: int) -> torch.Tensor:
    return torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("name", ["squeeze", "alex"])
def test_every_backbone_weight_comes_from_the_file_and_the_heads_from_lpips(name, tmp_path):
    torch.manual_seed(1)
    network = getattr(torchvision.models, NETWORKS[name])(weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    distance = load_perceptual(name, backbone=tmp_path / "weights.pth")

    # lpips itself, its backbone's layers exchanged for torchvision's by position.
    reference = lpips.LPIPS(net=name, pnet_rand=True, verbose=False)
    for part in reference.net.children():
        for index in dict(part.named_children()):
            part._modules[index] = network.features[int(index)]
    expected = reference(images(0).expand(-1, 3, -1, -1), images(1).expand(-1, 3, -1, -1)).mean()
    found = distance(images(0), images(1))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert found > 0 and distance(images(0), images(0)) == 0


def test_each_image_has_its_own_distance_and_training_takes_their_mean(squeeze):
    distance = load_perceptual("squeeze", backbone=squeeze)
    image, reference = images(0), images(1)
    reference[1] = image[1]
    found = distance.per_image(image, reference)
    assert found.shape == (2,) and found.dtype == torch.float32
    assert found[0] > 0 and found[1] == 0
    torch.testing.assert_close(found[:1], distance.per_image(image[:1], reference[:1]))
    assert torch.equal(distance(image, reference), found.mean())


def test_gradients_reach_the_image_and_not_the_network(squeeze):
    distance = load_perceptual("squeeze", backbone=squeeze)
    image = images(0).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = distance(image, images(1))
    assert loss.dtype == torch.float32
    loss.backward()
    assert image.grad.abs().sum() > 0
    assert not any(weight.requires_grad for weight in distance.parameters())
    assert not distance.lpips.training


def test_none_is_no_network():
    assert load_perceptual("none", backbone=None) is None


@pytest.mark.parametrize("name", NETWORKS)
def test_missing_weights_are_named_with_address_key_and_way_out(name, tmp_path):
    for backbone in (None, tmp_path / "nowhere.pth"):
        with pytest.raises(FileNotFoundError) as error:
            load_perceptual(name, backbone=backbone)
        said = str(error.value)
        assert f"https://download.pytorch.org/models/{NETWORKS[name]}" in said
        assert "objective.perceptual_backbone" in said and "objective.perceptual=none" in said


def test_other_files_are_refused(tmp_path, squeeze):
    with pytest.raises(ValueError, match=r"accepted: squeeze, alex, vgg, none"):
        load_perceptual("resnet", backbone=squeeze)
    with pytest.raises(ValueError, match=r"squeezenet1_1-random\.pth.*objective\.perceptual=alex"):
        load_perceptual("alex", backbone=squeeze)
    page = tmp_path / "page.pth"
    page.write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"page\.pth"):
        load_perceptual("squeeze", backbone=page)
    # A whole pickled network could run any code.
    torch.save(torch.nn.Linear(2, 2), tmp_path / "pickle.pth")
    with pytest.raises(ValueError, match=r"pickle\.pth"):
        load_perceptual("squeeze", backbone=tmp_path / "pickle.pth")
