"""The autoencoder's objective against its formula, and the statistics of its latents."""

import json

import pytest
import torch
from diffusers import AutoencoderKL
from torch.distributions import Normal, kl_divergence

from diffct.training.reconstruction import (
    LatentStatistics,
    Reconstruction,
    ReconstructionObjective,
    latent_sums,
    make_autoencoder,
    write_scaling_factor,
)

TINY = {
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "block_out_channels": [4, 8],
    "latent_channels": 2,
    "norm_num_groups": 2,
    "mid_block_add_attention": False,
}


def images(count: int = 3, height: int = 8, width: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 1, height, width, generator=generator) * 2 - 1


def tiny() -> AutoencoderKL:
    return make_autoencoder(TINY, size=(8, 12), seed=0)


class Double(torch.nn.Module):
    """An "autoencoder" that is off by 0.2 and has a known posterior."""

    def __init__(self, *size: int) -> None:
        super().__init__()
        ones = torch.ones(3, 1, *size)
        mean, logvar = ([0.5, -1.0], [-2.0, 0.3])
        self.mean = torch.cat([value * ones for value in mean], dim=1)
        self.logvar = torch.cat([value * ones for value in logvar], dim=1)

    def forward(self, image, generator):
        return image + 0.2, torch.cat([self.mean, self.logvar], dim=1)


@pytest.mark.parametrize("size", [(4, 6), (5, 4, 6)], ids=["images", "volumes"])
def test_losses_are_those_of_the_formula_in_units_of_0_to_1(size):
    double, generator = Double(*size), torch.Generator()
    objective = ReconstructionObjective(kl_weight=1e-2, perceptual=None, perceptual_weight=0)
    losses, made = objective(double, images(), generator=generator)
    assert torch.allclose(made, images() + 0.2)
    # 0.2 of [-1, 1] is 0.1 of [0, 1].
    assert losses["l1"].item() == pytest.approx(0.1)
    posterior = Normal(double.mean, (double.logvar / 2).exp())
    kl = kl_divergence(posterior, Normal(0.0, 1.0)).flatten(1).sum(dim=1).mean()
    assert losses["kl"].item() == pytest.approx(kl.item(), rel=1e-5)
    assert losses["loss"].item() == pytest.approx(0.1 + 1e-2 * kl.item(), rel=1e-5)


def test_the_perceptual_loss_sees_the_model_range_and_is_weighed():
    seen = []

    def distance(made, image):
        seen.extend([made, image])
        return torch.tensor(3.0)

    objective = ReconstructionObjective(kl_weight=0, perceptual=distance, perceptual_weight=0.5)
    losses, made = objective(Double(4, 6), images(), generator=torch.Generator())
    assert losses["loss"].item() == pytest.approx(0.1 + 1.5)
    assert torch.equal(seen[0], made) and torch.equal(seen[1], images())


def test_training_draws_from_the_posterior_with_the_generator_and_evaluation_takes_its_mean():
    network = Reconstruction(tiny())
    draws = [network(images(), torch.Generator().manual_seed(s))[0] for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    made, parameters = network(images())
    assert torch.equal(made, network.autoencoder(images()).sample)
    assert parameters.shape == (3, 4, 4, 6)


def test_the_gradient_reaches_every_parameter():
    network = Reconstruction(tiny())
    objective = ReconstructionObjective(kl_weight=1e-3, perceptual=None, perceptual_weight=0)
    objective(network, images(), generator=torch.Generator())[0]["loss"].backward()
    assert all(weight.grad.abs().sum() > 0 for weight in network.parameters())


def test_statistics_of_latents_are_those_of_very_many_draws():
    autoencoder = tiny().eval()
    torch.nn.init.normal_(autoencoder.quant_conv.weight)  # posteriors that differ by channel
    batches = [images(5)[:3], images(5)[3:]]
    found = LatentStatistics.from_sums(latent_sums(autoencoder, batches))

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        posterior = autoencoder.encode(images(5)).latent_dist
        drawn = torch.cat([posterior.sample(generator) for _ in range(2000)])
    assert found.mean == pytest.approx(drawn.mean(dim=(0, 2, 3)).tolist(), abs=0.01)
    assert found.std == pytest.approx(drawn.std(dim=(0, 2, 3)).tolist(), rel=0.01)
    assert found.overall_std == pytest.approx(drawn.std().item(), rel=0.01)
    assert found.scaling_factor == pytest.approx(1 / drawn.std().item(), rel=0.01)


def test_the_scaling_factor_is_null_until_it_is_written_and_nothing_else_changes(tmp_path):
    autoencoder = tiny()
    autoencoder.save_pretrained(tmp_path)
    before = json.loads((tmp_path / "config.json").read_text())
    assert before["scaling_factor"] is None
    assert AutoencoderKL.from_pretrained(tmp_path).config.scaling_factor is None

    write_scaling_factor(tmp_path, 0.8221)
    after = json.loads((tmp_path / "config.json").read_text())
    assert after == before | {"scaling_factor": 0.8221}
    loaded = AutoencoderKL.from_pretrained(tmp_path)
    assert loaded.config.scaling_factor == 0.8221
    assert torch.equal(loaded(images()).sample, autoencoder(images()).sample)


@pytest.mark.parametrize(
    ("change", "size", "message"),
    [
        ({}, (8, 13), r"data\.size=\[8, 13\].*divisible by 2.*\[8, 12\]"),
        ({"block_out_chanels": [4]}, (8, 8), r"autoencoder\.block_out_channels"),
        ({"block_out_channels": [4, 8, 8]}, (8, 8), "2 down_block_types.*3 block_out_channels"),
        ({"norm_num_groups": 3}, (8, 8), "divisible"),
        ({"in_channels": 3}, (8, 8), "gray"),
        ({"scaling_factor": 0.3}, (8, 8), "outside of that section"),
    ],
)
def test_impossible_autoencoders_are_refused(change, size, message):
    with pytest.raises(ValueError, match=message):
        make_autoencoder(TINY | change, size=size, seed=0)
