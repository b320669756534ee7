"""Denoising: the same loss for training, for validation and for the membership attack."""

from dataclasses import dataclass, replace

import pytest
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from diffct.models.controlled_unet import make_controlnet
from diffct.models.latent_space import LatentSpace
from diffct.models.small_text_encoder import make_small_text_encoder
from diffct.models.text_encoding import embed, tokenize
from diffct.training.denoising import Denoising, by_image, by_prompt, voxels
from diffct.training.learner import averaged_weights, make_gradient_step
from diffct.training.objectives import DiffusionObjective
from diffct.training.settings import EMAConfig, OptimConfig, RunConfig
from diffct.training.validation import make_validation
from tests.pipelines.tiny_flair import make_unet


@dataclass
class System:
    """A ControlNet on a frozen denoiser, in parts."""

    objective: DiffusionObjective
    space: LatentSpace
    unet: UNet2DConditionModel
    controlnet: ControlNetModel
    prompts: Tensor
    empty_probability: float

    def denoising(self) -> Denoising:
        condition = by_image(
            self.unet, self.controlnet, self.prompts, empty_probability=self.empty_probability
        )
        return Denoising(self.objective, self.space.encode, condition)


@pytest.fixture
def system() -> System:
    torch.manual_seed(0)
    autoencoder = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 4),
        latent_channels=3,
        norm_num_groups=2,
        scaling_factor=0.5,
    )
    unet = make_unet().requires_grad_(False)
    scheduler = DDIMScheduler(prediction_type="v_prediction", clip_sample=False)
    return System(
        DiffusionObjective(scheduler),
        space=LatentSpace(autoencoder),
        unet=unet,
        controlnet=make_controlnet(unet, conditions=1, embedding_channels=[4, 8], factor=2, seed=0),
        prompts=torch.randn(2, 5, 16),
        empty_probability=0.1,
    )


def pairs(count: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image, condition = torch.rand(2, count, 1, 16, 24, generator=generator)
    return {"image": image * 2 - 1, "condition": condition}


def loss_of(system: System, seed: int = 0) -> Tensor:
    return system.denoising()(pairs(), torch.Generator().manual_seed(seed))["loss"]


def test_a_new_controlnet_has_the_loss_of_the_frozen_denoiser_bit_by_bit(system):
    batch, generator = pairs(), torch.Generator().manual_seed(0)
    clean = system.space.encode(batch, generator)
    prompts = system.prompts[(torch.rand(3, generator=generator) >= 0.1).long()]
    expected = system.objective(
        lambda noisy, t: system.unet(noisy, t, encoder_hidden_states=prompts).sample,
        clean,
        generator=generator,
    )
    assert loss_of(system).equal(expected["loss"])


def test_prompts_are_emptied_with_the_given_probability(system):
    never, always = (replace(system, empty_probability=share) for share in (0.0, 1.0))
    only_empty = replace(system, prompts=system.prompts[[0, 0]])
    only_constant = replace(system, prompts=system.prompts[[1, 1]])
    assert loss_of(always).equal(loss_of(only_empty))
    assert loss_of(never).equal(loss_of(only_constant))
    assert not loss_of(always).equal(loss_of(never))


def test_validation_is_the_mean_over_held_out_slices_by_the_moving_average(system):
    held_out = [{name: values[i] for name, values in pairs().items()} for i in range(3)]
    config = RunConfig(
        optim=OptimConfig(lr=0.05, warmup_updates=0),
        ema=EMAConfig(decay=0.9),
        seed=4,
    )
    accelerator, denoising = Accelerator(cpu=True), system.denoising()
    step = make_gradient_step(
        config, accelerator=accelerator, model=system.controlnet, losses=denoising
    )
    validate = make_validation(step, denoising, held_out, draws=2, seed=4)
    before = validate()
    for seed in range(8):
        step(pairs(), torch.Generator().manual_seed(seed))
    learnt = system.controlnet.controlnet_mid_block.weight.clone()
    validated = validate()
    assert validated != before
    assert system.controlnet.controlnet_mid_block.weight.equal(learnt)

    def by_hand() -> float:
        losses = [
            denoising.losses_of(
                {name: values[None] for name, values in piece.items()}, index, draws=2, seed=4
            )
            for index, piece in enumerate(held_out)
        ]
        assert all(loss.shape == (2,) for loss in losses)
        return float(torch.cat(losses).mean())

    with averaged_weights(step):
        assert by_hand() == pytest.approx(validated, rel=1e-6)
    assert by_hand() != pytest.approx(validated, rel=1e-3)
    assert make_validation(step, denoising, [], draws=2, seed=4) is None


class Proportional:
    """A denoiser that predicts its input times the condition of each sample."""

    def __call__(self, batch: dict[str, Tensor], generator: torch.Generator | None):
        return lambda noisy, timesteps: noisy * batch["factor"].view(-1, 1, 1, 1)


def test_losses_of_a_sample_depend_on_its_index_alone_and_spread_over_the_schedule(system):
    denoising = Denoising(system.objective, voxels, Proportional())
    seen = []

    def watch(batch, generator):
        def denoise(noisy: Tensor, timesteps: Tensor) -> Tensor:
            seen.extend(timesteps.tolist())
            return noisy

        return denoise

    batch = {"image": torch.rand(1, 1, 8, 8), "factor": torch.ones(1)}
    torch.randn(3)  # the global generator has no say
    once = denoising.losses_of(batch, 5, draws=4, seed=0)
    assert once.equal(denoising.losses_of(batch, 5, draws=4, seed=0))
    assert not once.equal(denoising.losses_of(batch, 6, draws=4, seed=0))
    for at_once in (False, True):
        seen.clear()
        watched = Denoising(system.objective, voxels, watch)
        assert watched.losses_of(batch, 5, draws=4, seed=0, at_once=at_once).shape == (4,)
        assert [timestep // 250 for timestep in seen] == [0, 1, 2, 3]


def test_draws_at_once_get_the_condition_of_their_sample(system):
    batch = {name: values[:1] for name, values in pairs().items()}
    denoising = system.denoising()
    together = denoising.losses_of(batch, 0, draws=3, seed=1, at_once=True)
    other = {"image": batch["image"], "condition": 1 - batch["condition"]}
    for start_at_zero in (
        system.controlnet.controlnet_mid_block,
        system.controlnet.controlnet_cond_embedding.conv_out,
    ):
        torch.nn.init.normal_(start_at_zero.weight)
    steered = denoising.losses_of(batch, 0, draws=3, seed=1, at_once=True)
    assert not steered.equal(together)
    assert not steered.equal(denoising.losses_of(other, 0, draws=3, seed=1, at_once=True))


@pytest.mark.parametrize("entry", ["prompt_embeds", "tokens"])
def test_prompts_are_embeddings_or_tokens_of_a_frozen_encoder(system, entry):
    def network(noisy: Tensor, timesteps: Tensor, prompt: dict[str, Tensor]) -> Tensor:
        return system.unet(noisy, timesteps, encoder_hidden_states=prompt["prompt_embeds"]).sample

    encoder = make_small_text_encoder(["a b c"], width=16, layers=1, max_length=5, seed=0)
    tokens = tokenize(encoder[0], ["a b"])
    with torch.no_grad():
        embedded = {"prompt_embeds": embed(encoder[1], tokens)}
    image = {"image": pairs()["image"][:1]}
    denoising = Denoising(system.objective, system.space.encode, by_prompt(network, encoder[1]))
    given = image | (embedded if entry == "prompt_embeds" else tokens)
    expected = denoising.losses_of(image | embedded, 0, draws=2, seed=0)
    assert denoising.losses_of(given, 0, draws=2, seed=0).equal(expected)
