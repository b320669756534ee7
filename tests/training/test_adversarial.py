"""Adversarial training: which network learns from what, and when."""

import copy

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from monai.losses import PatchAdversarialLoss
from torch import Tensor, nn

from diffct.training.adversarial import (
    AdversarialStep,
    make_adversarial_step,
    make_discriminator,
)
from diffct.training.settings import EMAConfig, OptimConfig, RunConfig

WEIGHT = 0.3


def forget_accelerators() -> None:
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Let every test have an accelerator of its own."""
    yield
    forget_accelerators()


def optim(**options: object) -> OptimConfig:
    constant = {"schedule": "constant", "warmup_updates": 0, "weight_decay": 0.0, "lr": 1e-2}
    return OptimConfig(**(constant | options))


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 3, padding=1))
    # Without batch normalisation, whose statistics differ between micro-batches and a batch.
    section = {"channels": 4, "num_layers_d": 1, "norm": "INSTANCE"}
    return network, make_discriminator(section, seed=1)


def make_step(
    *, accumulation: int = 1, start: int = 0, discriminator_optim: OptimConfig | None = None
) -> AdversarialStep:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
    network, discriminator = (accelerator.prepare(network) for network in networks())

    def reconstruct(batch: dict[str, Tensor], _: torch.Generator) -> tuple:
        generated = network(batch["image"])
        l1 = (generated - batch["image"]).abs().mean()
        return {"loss": l1, "l1": l1}, generated

    return make_adversarial_step(
        RunConfig(optim=optim(max_grad_norm=0.05), ema=EMAConfig()),
        accelerator=accelerator,
        model=network,
        reconstruct=reconstruct,
        discriminator=discriminator,
        discriminator_optim=discriminator_optim or optim(max_grad_norm=1e-3),
        weight=WEIGHT,
        start_updates=start,
    )


def images(count: int = 4) -> Tensor:
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1


def learn(step: AdversarialStep, *batches: Tensor) -> list[dict[str, float]]:
    return [step({"image": batch}, torch.Generator()) for batch in batches]


def weights(step: AdversarialStep) -> list[Tensor]:
    both = [*step.model.parameters(), *step.discriminator.model.parameters()]
    return [weight.detach().clone() for weight in both]


def equal(first: list[Tensor], second: list[Tensor], **tolerance: float) -> bool:
    return all(torch.allclose(a, b, **tolerance) for a, b in zip(first, second, strict=True))


def test_an_update_equals_that_of_the_plain_algorithm():
    step = make_step()
    found = learn(step, images(), images().flip(0) * 0.5)

    network, discriminator = networks()
    criterion = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
    optimizers = [
        torch.optim.AdamW(n.parameters(), 1e-2, weight_decay=0) for n in (network, discriminator)
    ]
    for image, values in zip((images(), images().flip(0) * 0.5), found, strict=True):
        generated = network(image)
        frozen = copy.deepcopy(discriminator)
        adversarial = criterion(frozen(generated)[-1], target_is_real=True, for_discriminator=False)
        loss = (generated - image).abs().mean() + WEIGHT * adversarial
        loss.backward()
        on_generated = criterion(
            discriminator(generated.detach())[-1], target_is_real=False, for_discriminator=True
        )
        on_real = criterion(discriminator(image)[-1], target_is_real=True, for_discriminator=True)
        (WEIGHT * (on_generated + on_real) / 2).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.05)
        nn.utils.clip_grad_norm_(discriminator.parameters(), 1e-3)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        assert values["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert values["adversarial"] == pytest.approx(adversarial.item(), rel=1e-5)
        assert values["discriminator"] == pytest.approx(
            (on_generated + on_real).item() / 2, rel=1e-5
        )
    plain = [*network.parameters(), *discriminator.parameters()]
    assert equal(weights(step), plain, atol=1e-6)


def test_micro_batches_add_up_to_the_batch_for_both_networks():
    whole = make_step()
    learn(whole, images(), images().flip(0) * 0.5)
    forget_accelerators()
    parts = make_step(accumulation=2)
    before = weights(parts)
    first, second = images(), images().flip(0) * 0.5
    learn(parts, first[:2])
    assert equal(weights(parts), before, atol=0)
    learn(parts, first[2:], second[:2], second[2:])
    assert not equal(weights(parts), before, atol=1e-3)
    assert equal(weights(parts), weights(whole), atol=2e-5)
    assert equal(parts.ema.shadow_params, whole.ema.shadow_params, atol=2e-5)


def test_one_gradient_scaler_serves_both_networks_though_it_changes_every_update():
    batches = [images()[i : i + 2] * f for f in (1.0, 0.5, 0.8) for i in (0, 2)]
    plain = make_step(accumulation=2)
    learn(plain, *batches)
    forget_accelerators()
    # What accelerate sets up for fp16 on a GPU; the arithmetic stays float32.
    scaled = make_step(accumulation=2)
    accelerator = scaled.accelerator
    accelerator.native_amp, accelerator.state._mixed_precision = True, "fp16"
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=1)
    learn(scaled, *batches)
    assert accelerator.scaler.get_scale() == 64.0 * 2**3
    assert equal(weights(scaled), weights(plain), atol=2e-5)

    # An overflow skips the network that has it, not the other one, and the scale falls.
    before = weights(scaled)
    hook = scaled.model[0].weight.register_hook(lambda gradient: gradient * float("inf"))
    learn(scaled, *batches[:2])
    hook.remove()
    own = len(list(scaled.model.parameters()))
    assert equal(weights(scaled)[:own], before[:own], atol=0)
    assert not equal(weights(scaled)[own:], before[own:], atol=0)
    assert scaled.lr_scheduler.last_epoch == 3
    assert accelerator.scaler.get_scale() == 64.0 * 2**2


def test_the_discriminator_is_unchanged_until_its_start_where_its_schedule_begins():
    warming = optim(schedule="constant_with_warmup", warmup_updates=4)
    step = make_step(start=2, discriminator_optim=warming)
    discriminator = step.discriminator
    before = [weight.clone() for weight in discriminator.model.parameters()]
    early = learn(step, images(), images())
    assert all(set(values) == {"loss", "l1"} for values in early)
    assert equal(before, list(discriminator.model.parameters()), atol=0)
    assert not discriminator.optimizer.state
    late = learn(step, images(), images())
    assert all({"adversarial", "discriminator"} < set(values) for values in late)
    assert discriminator.lr_scheduler.last_epoch == 2
    assert discriminator.lr_scheduler.get_last_lr() == [pytest.approx(1e-2 * 2 / 4)]
    assert not equal(before, list(discriminator.model.parameters()), atol=0)
    assert all(weight.requires_grad for weight in discriminator.model.parameters())


def test_the_discriminator_learns_to_tell_generated_from_real_images():
    step = make_step(discriminator_optim=optim(max_grad_norm=10.0))
    losses = [learn(step, images())[0]["discriminator"] for _ in range(40)]
    assert losses[-1] < 0.6 * losses[0]


def test_a_loss_that_is_not_finite_leaves_both_networks_untouched():
    step = make_step()
    learn(step, images())
    with torch.no_grad():
        step.discriminator.model.final_conv.conv.bias.fill_(float("nan"))
    before = weights(step)
    with pytest.raises(FloatingPointError, match="loss became nan"):
        learn(step, images())
    assert equal(weights(step), before, atol=0, equal_nan=True)


def test_unknown_arguments_of_the_discriminator_are_refused():
    with pytest.raises(ValueError, match=r"discriminator\.chanels.*discriminator\.channels"):
        make_discriminator({"chanels": 4}, seed=0)
