"""The 3D UNet: its sizes, its two geometries, and diffusers' conventions."""

import random
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from omegaconf import OmegaConf
from torch import Tensor

from diffct import UNet3DModel
from diffct.models.blocks_3d import DOWN_BLOCKS, MID_BLOCKS, UP_BLOCKS

THESIS = Path(__file__).parents[2] / "train" / "configs" / "ct3d/diffusion-published.yaml"
MIXED = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock3D"),
    "up_block_types": ("AttnUpBlock3D", "UpBlock2D"),
}
IN_SLICE = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}


def tiny(**options: object) -> UNet3DModel:
    """Return a small network, by default with blocks of both geometries."""
    torch.manual_seed(0)
    small = {"block_out_channels": (8, 16), "norm_num_groups": 4, "attention_head_dim": 4}
    return UNet3DModel(**(small | MIXED | options)).eval()


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def predict(unet: UNet3DModel, sample: Tensor, timestep: object = 10, **more: object) -> Tensor:
    return unet(sample, timestep, **more).sample


def thesis_config() -> dict[str, object]:
    return OmegaConf.to_container(OmegaConf.load(THESIS).unet)


# ------------------------------------------------------------------------------- the thesis network


def test_thesis_network_has_its_blocks_in_order_and_275148225_parameters():
    with torch.device("meta"):
        unet = UNet3DModel(**thesis_config())
    assert sum(parameter.numel() for parameter in unet.parameters()) == 275_148_225
    assert [block.in_slice for block in unet.down_blocks] == [False, True, False, True] + [
        False
    ] * 3
    assert [block.in_slice for block in unet.up_blocks] == [False, False, True, False, True] + [
        False
    ] * 2
    assert [len(block.attentions) for block in unet.down_blocks] == [0, 0, 0, 0, 0, 2, 0]
    assert [len(block.attentions) for block in unet.up_blocks] == [0, 3, 0, 0, 0, 0, 0]
    assert not unet.mid_block.in_slice
    assert [block.conv1.out_channels for block in unet.mid_block.resnets] == [512, 512, 512]
    assert len(unet.mid_block.attentions) == 2
    kernels = {m.kernel_size for block in unet.down_blocks[1].resnets for m in [block.conv1]}
    assert kernels == {(1, 3, 3)}


@pytest.mark.slow
def test_thesis_network_trains_on_its_26_slices():
    torch.manual_seed(0)
    unet = UNet3DModel(**thesis_config())
    output = unet(noise(1, 1, 26, 64, 64), 10).sample
    assert output.shape == (1, 1, 26, 64, 64)
    output.square().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in unet.parameters())


# ----------------------------------------------------------------------------------- sizes, batches


@pytest.mark.parametrize("downsample_padding", [0, 1])
@pytest.mark.parametrize(
    "size",
    [
        (26, 16, 16),
        (5, 7, 9),
        (13, 11, 17),
        (1, 16, 16),
        (7, 1, 1),
        (1, 1, 1),
        (3, 2, 1),
        (2, 3, 31),
    ],
)
def test_output_has_the_size_of_any_input(size, downsample_padding):
    unet = tiny(
        block_out_channels=(4, 4, 8, 8),  # three halvings; groups of a single channel
        layers_per_block=1,
        down_block_types=("DownBlock3D", "DownBlock2D", "AttnDownBlock3D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock3D", "UpBlock2D", "UpBlock3D"),
        downsample_padding=downsample_padding,
    )
    output = predict(unet, noise(1, 1, *size))
    assert output.shape == (1, 1, *size)
    assert torch.isfinite(output).all()


def test_default_network_takes_a_single_voxel():
    assert torch.isfinite(predict(UNet3DModel(), noise(1, 1, 1, 1, 1))).all()


def test_batch_of_two_equals_two_batches_of_one():
    # With a timestep per volume, where the in-slice blocks of the thesis failed.
    unet = tiny()
    samples, timesteps = noise(2, 1, 5, 8, 8), torch.tensor([3, 700])
    together = predict(unet, samples, timesteps)
    for i in range(2):
        alone = predict(unet, samples[i : i + 1], timesteps[i])
        assert torch.allclose(together[i], alone[0], atol=1e-5)
    assert not torch.allclose(predict(unet, samples, timesteps.flip(0)), together, atol=1e-3)


@pytest.mark.parametrize("seed", range(12))
def test_blocks_mix_in_any_order(seed):
    rng = random.Random(seed)
    levels = rng.choice([2, 3, 4])
    unet = tiny(
        down_block_types=tuple(rng.choices(list(DOWN_BLOCKS), k=levels)),
        mid_block_type=rng.choice([*MID_BLOCKS, None]),
        up_block_types=tuple(rng.choices(list(UP_BLOCKS), k=levels)),
        block_out_channels=tuple(rng.choices([8, 16], k=levels)),
        layers_per_block=rng.choice([1, 2]),
    )
    size = [rng.randint(1, 9) for _ in range(3)]
    output = predict(unet, noise(2, 1, *size))
    assert output.shape == (2, 1, *size)
    assert torch.isfinite(output).all()


@pytest.mark.parametrize("size", [(4, 8, 8), (5, 7, 9)])
@pytest.mark.parametrize(
    ("down", "up"), [("2D 3D", "3D 2D"), ("2D 3D", "2D 3D"), ("3D 2D", "3D 2D"), ("3D 3D", "2D 2D")]
)
def test_up_blocks_need_not_mirror_the_down_blocks(down, up, size):
    unet = tiny(
        down_block_types=[f"DownBlock{kind}" for kind in down.split()],
        up_block_types=[f"UpBlock{kind}" for kind in up.split()],
    )
    assert predict(unet, noise(1, 1, *size)).shape == (1, 1, *size)


# --------------------------------------------------------------------------------------- geometries


def changed_slices(unet: UNet3DModel) -> list[int]:
    """Return the output slices that differ after slice 2 of five has been perturbed."""
    sample = noise(1, 1, 5, 8, 8)
    perturbed = sample.clone()
    perturbed[:, :, 2] += noise(8, 8)
    difference = (predict(unet, perturbed) - predict(unet, sample)).abs().amax(dim=(0, 1, 3, 4))
    return torch.nonzero(difference > 1e-6).flatten().tolist()


def test_in_slice_network_treats_slices_independently():
    assert changed_slices(tiny(**IN_SLICE)) == [2]


@pytest.mark.parametrize(
    "volumetric",
    [
        {"down_block_types": ("DownBlock3D", "DownBlock2D")},
        {"down_block_types": ("DownBlock2D", "AttnDownBlock3D")},
        {"mid_block_type": "UNetMidBlock3D"},
        {"up_block_types": ("UpBlock3D", "UpBlock2D")},
    ],
)
def test_a_single_volumetric_block_mixes_all_slices(volumetric):
    assert changed_slices(tiny(**(IN_SLICE | volumetric))) == [0, 1, 2, 3, 4]


def test_normalisation_of_an_in_slice_block_sees_one_slice():
    unet = tiny()
    seen = {}
    for i in range(2):
        norm = unet.down_blocks[i].resnets[0].norm1
        norm.register_forward_pre_hook(lambda _, args, i=i: seen.update({i: args[0].shape}))
    predict(unet, noise(2, 1, 5, 8, 8))
    assert seen[0] == (2 * 5, 8, 1, 8, 8)  # in-slice: every slice is a batch element
    assert seen[1] == (2, 8, 5, 4, 4)


# ----------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("geometry", [MIXED, IN_SLICE])
def test_gradient_reaches_every_parameter(geometry):
    unet = tiny(**geometry, num_class_embeds=2).train()
    labels = torch.tensor([0, 1])
    output = unet(noise(2, 1, 3, 8, 8), torch.tensor([3, 700]), class_labels=labels).sample
    output.square().mean().backward()
    silent = [name for name, p in unet.named_parameters() if p.grad is None or not p.grad.any()]
    # A shift of all keys does not change the softmax: the gradient of their bias is rounding noise.
    assert not [name for name in silent if not name.endswith("to_k.bias")]


def test_checkpointed_network_equals_the_plain_one():
    sample, timesteps = noise(2, 1, 5, 7, 8), torch.tensor([3, 700])
    outputs, gradients = [], []
    for checkpointed in (False, True):
        unet = tiny().train()
        if checkpointed:
            unet.enable_gradient_checkpointing()
        assert unet.is_gradient_checkpointing == checkpointed
        output = unet(sample, timesteps).sample
        output.square().mean().backward()
        outputs.append(output)
        gradients.append([parameter.grad for parameter in unet.parameters()])
    assert torch.allclose(*outputs, atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_checkpointing_recomputes_every_residual_block():
    unet = tiny().train()
    unet.enable_gradient_checkpointing()
    calls = []
    for block in (unet.down_blocks[0], unet.mid_block, unet.up_blocks[1]):
        for resnet in block.resnets:
            resnet.register_forward_pre_hook(lambda module, _: calls.append(module))
    unet(noise(1, 1, 3, 8, 8), 5).sample.sum().backward()
    assert len(calls) == 2 * len(set(calls)) == 2 * (2 + 3 + 3)


# ----------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"down_block_types": ("DownBlock2D", "DownBlock4D")}, "'DownBlock4D'; known are DownBlo"),
        ({"up_block_types": ("UpBlock2D", "DownBlock2D")}, "'DownBlock2D'; known are UpBlock2D"),
        ({"mid_block_type": "MidBlock"}, "'MidBlock'; known are UNetMidBlock2D, UNetMidBlock3D"),
        ({"up_block_types": ("UpBlock2D",)}, "up_block_types must be as long .* got 1 and 2"),
        ({"block_out_channels": (8, 16, 32)}, r"one entry per down block \(2\), got 3"),
        ({"block_out_channels": (8, 18)}, "18 is not a multiple of norm_num_groups=4"),
        ({"attention_head_dim": 32}, "attention_head_dim=32 exceeds the 16 channels"),
    ],
)
def test_impossible_configurations_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


# ------------------------------------------------------------------------------- class conditioning


def test_class_label_changes_the_output():
    unet, sample = tiny(num_class_embeds=3), noise(1, 1, 3, 8, 8)
    first, second = (predict(unet, sample, class_labels=torch.tensor([i])) for i in (0, 2))
    assert not torch.allclose(first, second, atol=1e-3)


def test_class_labels_are_required_when_configured_and_refused_otherwise():
    with pytest.raises(ValueError, match="has classes: give class_labels"):
        predict(tiny(num_class_embeds=3), noise(1, 1, 3, 8, 8))
    with pytest.raises(ValueError, match="no classes: class_labels must be None"):
        predict(tiny(), noise(1, 1, 3, 8, 8), class_labels=torch.tensor([0]))


# ------------------------------------------------------------------------------- saving and loading


def test_saved_network_loads_equal_and_holds_no_pickle(tmp_path):
    unet, sample = tiny(num_class_embeds=2), noise(2, 1, 3, 8, 8)
    unet.save_pretrained(tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"config.json", "diffusion_pytorch_model.safetensors"}
    loaded = UNet3DModel.from_pretrained(tmp_path, use_safetensors=True)
    weights, loaded_weights = unet.state_dict(), loaded.state_dict()
    assert list(weights) == list(loaded_weights)
    assert all(torch.equal(weight, loaded_weights[name]) for name, weight in weights.items())
    labels = torch.tensor([0, 1])
    expected = predict(unet, sample, class_labels=labels)
    assert torch.allclose(predict(loaded, sample, class_labels=labels), expected, atol=1e-6)


def test_half_precision_variant_is_saved_under_its_name(tmp_path):
    tiny().half().save_pretrained(tmp_path, variant="fp16")
    assert (tmp_path / "diffusion_pytorch_model.fp16.safetensors").is_file()
    loaded = UNet3DModel.from_pretrained(tmp_path, variant="fp16", torch_dtype=torch.float16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float16}
    with pytest.raises(OSError, match="diffusion_pytorch_model"):
        UNet3DModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_network_loads_and_runs_in_half_precision(tmp_path, dtype):
    unet, sample = tiny(), noise(1, 1, 3, 8, 8)
    unet.save_pretrained(tmp_path)
    loaded = UNet3DModel.from_pretrained(tmp_path, torch_dtype=dtype)
    output = predict(loaded, sample.to(dtype))
    assert output.dtype == dtype
    assert torch.allclose(output.float(), predict(unet, sample), atol=0.1)


# --------------------------------------------------------------------------- diffusers' conventions


@pytest.mark.parametrize("geometry", [MIXED, IN_SLICE])
def test_channels_last_3d_equals_contiguous(geometry):
    # From this size on the CPU's convolutions choose a layout.
    unet, sample = tiny(**geometry, out_channels=2), noise(2, 1, 5, 16, 16)
    expected = predict(unet, sample)
    unet.to(memory_format=torch.channels_last_3d)
    output = predict(unet, sample.to(memory_format=torch.channels_last_3d))
    assert torch.allclose(output, expected, atol=1e-5)
    assert output.is_contiguous(memory_format=torch.channels_last_3d)
    assert not output.is_contiguous()


def switch_to_plain(unet: UNet3DModel) -> None:
    unet.set_attn_processor(AttnProcessor())


def switch_by_name(unet: UNet3DModel) -> None:
    unet.set_attn_processor({name: AttnProcessor() for name in unet.attn_processors})


@pytest.mark.parametrize(
    "switch",
    [switch_to_plain, switch_by_name, UNet3DModel.set_default_attn_processor],
    ids=["one", "dictionary", "default"],
)
def test_attention_processors_agree(switch: Callable[[UNet3DModel], None]):
    unet, sample = tiny(), noise(2, 1, 5, 7, 8)
    # Two layers in the down block, three in the up block, two in the mid block.
    assert [type(processor) for processor in unet.attn_processors.values()] == [
        AttnProcessor2_0
    ] * 7
    expected = predict(unet, sample)
    switch(unet)
    assert [type(processor) for processor in unet.attn_processors.values()] == [AttnProcessor] * 7
    assert torch.allclose(predict(unet, sample), expected, atol=1e-5)


def test_fused_projections_change_no_output_and_can_be_undone():
    unet, sample = tiny(), noise(2, 1, 5, 7, 8)
    names, expected = list(unet.state_dict()), predict(unet, sample)
    unet.fuse_qkv_projections()
    unet.mid_block.attentions[0].to_q = None  # nobody may ask for it now
    assert torch.allclose(predict(unet, sample), expected, atol=1e-5)
    unet = tiny()
    unet.set_default_attn_processor()
    unet.fuse_qkv_projections()
    unet.fuse_qkv_projections()
    unet.unfuse_qkv_projections()
    assert list(unet.state_dict()) == names
    assert {type(processor) for processor in unet.attn_processors.values()} == {AttnProcessor}
    assert not unet.mid_block.attentions[0].fused_projections
    assert torch.allclose(predict(unet, sample), expected, atol=1e-6)


def test_offloaded_network_equals_the_plain_one(tmp_path):
    unet, sample = tiny(), noise(1, 1, 5, 7, 8)
    unet.save_pretrained(tmp_path)
    size = sum(parameter.numel() * 4 for parameter in unet.parameters())
    offloaded = UNet3DModel.from_pretrained(
        tmp_path,
        device_map="auto",
        max_memory={"cpu": size // 2},
        offload_folder=str(tmp_path / "offload"),
    )
    assert set(offloaded.hf_device_map.values()) == {"cpu", "disk"}
    assert torch.allclose(predict(offloaded, sample), predict(unet, sample), atol=1e-6)


def test_layerwise_casting_spares_the_normalisations():
    unet = tiny()
    unet.enable_layerwise_casting(storage_dtype=torch.float16, compute_dtype=torch.float32)
    block = unet.down_blocks[0].resnets[0]
    assert block.conv1.weight.dtype == torch.float16
    assert block.norm1.weight.dtype == torch.float32
    output = predict(unet, noise(1, 1, 3, 8, 8))
    assert torch.allclose(output, predict(tiny(), noise(1, 1, 3, 8, 8)), atol=0.05)


@pytest.mark.slow
def test_compiled_network_equals_the_eager_one():
    unet, sample = tiny(), noise(2, 1, 5, 7, 8)
    expected = predict(unet, sample)
    compiled = torch.compile(unet, fullgraph=True)
    assert torch.allclose(predict(compiled, sample), expected, atol=1e-5)


@pytest.mark.parametrize(
    "option",
    [
        {"time_embedding_type": "nope"},
        {"class_embed_type": "projection"},
        {"resnet_time_scale_shift": "spatial"},
        {"downsample_padding": 2},
        {"downsample_type": "resnet"},
        {"upsample_type": "resnet"},
    ],
)
def test_an_unknown_choice_is_refused_with_the_accepted_ones(option):
    (name,) = option
    with pytest.raises(ValueError, match=f"{name}=.*accepted are"):
        UNet3DModel(block_out_channels=(8, 8, 8), norm_num_groups=4, **option)


def test_diffusers_auto_model_finds_the_network(tmp_path):
    unet = UNet3DModel(block_out_channels=(8, 8, 8), norm_num_groups=4)
    unet.save_pretrained(tmp_path)
    assert type(diffusers.AutoModel.from_pretrained(str(tmp_path))) is UNet3DModel
