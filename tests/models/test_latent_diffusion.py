"""The components of a latent diffusion model fit each other, or are refused."""

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from diffct.models.latent_diffusion import (
    SmallTextEncoderConfig,
    TextEncoderConfig,
    load_autoencoder,
    load_parts,
    make_text_encoder,
    make_unet,
)
from diffct.models.latent_space import LatentSpace
from diffct.models.text_conditioned import TextConditionedUNet
from diffct.models.text_encoding import embed, tokenize

SENTENCES = ["No pleural effusion.", "There is a left nodule."]
UNET = {
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
}


def autoencoder(**options) -> AutoencoderKL:
    torch.manual_seed(0)
    settings = {
        "in_channels": 1,
        "out_channels": 1,
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "block_out_channels": [4, 8],
        "latent_channels": 3,
        "norm_num_groups": 2,
        "scaling_factor": 0.5,
    }
    return AutoencoderKL(**settings | options).eval()


def small_text_encoder():
    small = SmallTextEncoderConfig(width=16, layers=1, heads=2, max_length=24)
    config = TextEncoderConfig(name="small", train=True, small=small)
    return make_text_encoder(config, SENTENCES, seed=0)


def unet(arguments=UNET, size=(32, 48), width=16) -> UNet2DConditionModel:
    return make_unet(arguments, space=LatentSpace(autoencoder()), size=size, width=width, seed=0)


def test_latents_are_drawn_from_the_posterior_and_scaled():
    space = LatentSpace(autoencoder())
    image = torch.rand(1, 1, 32, 48) * 2 - 1
    posterior = space.autoencoder.encode(image).latent_dist
    draws = torch.cat(
        [space.encode({"image": image}, torch.Generator().manual_seed(seed)) for seed in range(400)]
    )
    assert draws.shape == (400, 3, 16, 24)
    assert torch.allclose(draws.mean(0), posterior.mean[0] * 0.5, atol=0.3)
    assert torch.allclose(draws.std(0).mean(), posterior.std.mean() * 0.5, rtol=0.05)
    assert torch.equal(space.encode({"image": image}, None), posterior.mean * 0.5)


def test_cached_moments_give_the_same_draws_as_images():
    space = LatentSpace(autoencoder())
    image = torch.rand(2, 1, 32, 32) * 2 - 1
    mean, std = space.moments(image)
    draws = [
        space.encode(batch, torch.Generator().manual_seed(1))
        for batch in ({"image": image}, {"latent_mean": mean, "latent_std": std})
    ]
    assert torch.equal(*draws)


def test_an_autoencoder_whose_training_has_not_ended_is_refused():
    with pytest.raises(ValueError, match="no scaling_factor"):
        LatentSpace(autoencoder(scaling_factor=None))


def test_a_missing_autoencoder_is_named_with_the_way_to_get_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing.*train_autoencoder\.py"):
        load_autoencoder(str(tmp_path / "nothing"))


def test_the_unet_is_made_to_fit_autoencoder_images_and_text_encoder():
    config = unet().config
    assert (config.in_channels, config.out_channels) == (3, 3)
    assert list(config.sample_size) == [16, 24]
    assert config.cross_attention_dim == 16


@pytest.mark.parametrize(
    ("name", "value"), [("cross_attention_dim", 1024), ("in_channels", 4), ("sample_size", 64)]
)
def test_a_unet_that_disagrees_with_another_part_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"unet\.{name}={value}"):
        unet(UNET | {name: value})


def test_a_small_text_encoder_must_be_trained():
    config = TextEncoderConfig(name="small", train=False)
    with pytest.raises(ValueError, match=r"text_encoder\.train=true"):
        make_text_encoder(config, SENTENCES, seed=0)


def test_gradients_reach_every_weight_of_a_text_encoder_that_is_trained_too():
    tokenizer, text_encoder = small_text_encoder()
    network = TextConditionedUNet(unet(), text_encoder=text_encoder)
    tokens = tokenize(tokenizer, SENTENCES)
    output = network(torch.randn(2, 3, 16, 24), torch.tensor([3, 700]), tokens)
    output.square().mean().backward()
    missing = [name for name, weight in network.named_parameters() if weight.grad is None]
    assert missing == []


def test_tokens_and_their_embeddings_give_the_same_prediction():
    tokenizer, text_encoder = small_text_encoder()
    network = TextConditionedUNet(unet(), text_encoder=text_encoder).eval()
    tokens = tokenize(tokenizer, SENTENCES)
    noisy, timesteps = torch.randn(2, 3, 16, 24), torch.tensor([3, 700])
    with torch.no_grad():
        embeddings = {"prompt_embeds": embed(text_encoder, tokens)}
        alike = network(noisy, timesteps, tokens), network(noisy, timesteps, embeddings)
        other = network(noisy, timesteps, tokenize(tokenizer, SENTENCES[::-1]))
    assert torch.equal(*alike)
    assert not torch.allclose(alike[0], other)


def stock_pipeline(denoiser: UNet2DConditionModel) -> StableDiffusionPipeline:
    tokenizer, text_encoder = small_text_encoder()
    return StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=denoiser,
        scheduler=DDIMScheduler(prediction_type="v_prediction", clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def test_the_components_of_a_diffusers_pipeline_are_loaded(tmp_path):
    stock_pipeline(unet()).save_pretrained(tmp_path)
    parts = load_parts(str(tmp_path))
    assert parts.scheduler.config.prediction_type == "v_prediction"
    assert torch.equal(parts.unet.conv_in.weight, unet().conv_in.weight)


def test_a_network_with_distilled_guidance_is_refused(tmp_path):
    # The training objective does not include its guidance condition and would ignore it.
    distilled = unet(UNET | {"time_cond_proj_dim": 8})
    stock_pipeline(distilled).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"guidance distilled into its UNet.*distilled from"):
        load_parts(str(tmp_path))


def test_a_network_that_is_no_autoencoder_is_refused_as_one(tmp_path):
    unet().save_pretrained(tmp_path / "unet")
    with pytest.raises(
        FileNotFoundError, match=r"holds no AutoencoderKL \(it is a UNet2DCondition"
    ):
        load_autoencoder(str(tmp_path / "unet"))
    autoencoder().save_pretrained(tmp_path / "vae")
    assert isinstance(load_autoencoder(str(tmp_path / "vae")), AutoencoderKL)
