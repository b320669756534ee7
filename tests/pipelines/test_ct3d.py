"""CT3DPipeline: schedulers, sizes, physical meaning, saving and loading."""

import json

import diffusers
import nibabel
import numpy as np
import pytest
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin

import diffct
from diffct import CT3DPipeline, UNet3DModel

SPACING_MM = [3.0, 1.5, 2.0]


def tiny_unet(**options: object) -> UNet3DModel:
    torch.manual_seed(0)
    return UNet3DModel(
        down_block_types=("DownBlock2D", "AttnDownBlock3D"),
        up_block_types=("AttnUpBlock3D", "UpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        **options,
    ).eval()


def tiny_pipeline(unet: UNet3DModel | None = None, **scheduler: object) -> CT3DPipeline:
    pipeline = CT3DPipeline(
        unet or tiny_unet(),
        diffusers.DDPMScheduler(timestep_spacing="trailing", **scheduler),
        window_hu=[-1000, 600],
        spacing_mm=SPACING_MM,
        size=[4, 8, 10],
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SCHEDULERS = [
    "DDPMScheduler",
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
]


class Oracle(UNet3DModel):
    """A network that knows the clean volume: `x_0 = answer`, everywhere."""

    answer = 0.25

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        # Recover ε from x_t at this timestep under the default DDPM schedule.
        alpha = diffusers.DDPMScheduler().alphas_cumprod[int(timestep)]
        noise = (sample - alpha.sqrt() * self.answer) / (1 - alpha).sqrt()
        return diffusers.models.unets.unet_2d.UNet2DOutput(sample=noise)


@pytest.mark.parametrize(
    "name",
    ["DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"],
)
def test_every_solver_finds_the_volume_that_a_perfect_network_knows(name):
    pipeline = tiny_pipeline(Oracle(**_tiny_config()))
    pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config)
    volume = pipeline(num_inference_steps=20, generator=seeded()).volumes[0]
    # -1 … 1 is -1000 … 600 HU, so 0.25 is 0 HU.
    assert np.abs(volume).max() < 20


def _tiny_config() -> dict[str, object]:
    config = dict(tiny_unet().config)
    return {name: value for name, value in config.items() if not name.startswith("_")}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_schedulers_of_diffusers_sample_finite_hounsfield_units(name, prediction_type):
    pipeline = tiny_pipeline(prediction_type=prediction_type)
    pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config)
    volumes = pipeline(batch_size=2, num_inference_steps=5, generator=seeded()).volumes
    assert volumes.shape == (2, 4, 8, 10)
    assert volumes.dtype == np.float32
    assert np.isfinite(volumes).all()
    assert volumes.min() >= -1000 and volumes.max() <= 600
    assert volumes.std() > 1


def test_a_scheduler_of_another_prediction_type_is_refused():
    pipeline = tiny_pipeline(prediction_type="v_prediction")
    pipeline.scheduler = diffusers.DDIMScheduler()
    with pytest.raises(ValueError, match=r"'v_prediction'.*DDIMScheduler.*from_config"):
        pipeline(num_inference_steps=2)
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler"):
        CT3DPipeline(tiny_unet(), diffusers.FlowMatchEulerDiscreteScheduler())


def test_any_size_keeps_the_spacing():
    output = tiny_pipeline()(size=(5, 7, 11), num_inference_steps=2, generator=seeded())
    assert output.volumes.shape == (1, 5, 7, 11)
    assert output.spacing_mm == tuple(SPACING_MM)
    for size in [(4, 8), (0, 8, 8)]:
        with pytest.raises(ValueError, match="size must be three positive"):
            tiny_pipeline()(size=size)


def test_equal_generators_give_equal_volumes_and_a_batch_is_its_parts():
    pipeline = tiny_pipeline()
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)

    def sample(*seeds: int) -> np.ndarray:
        generators = [seeded(seed) for seed in seeds]
        return pipeline(len(seeds), num_inference_steps=3, generator=generators).volumes

    both = sample(1, 2)
    assert np.array_equal(sample(1, 2), both)
    assert np.allclose(np.concatenate([sample(1), sample(2)]), both, atol=0.05)
    assert not np.allclose(both[0], both[1], atol=1)


def test_class_labels_matter_and_are_checked():
    pipeline = tiny_pipeline(tiny_unet(num_class_embeds=2))

    def sample(labels: object) -> np.ndarray:
        return pipeline(2, class_labels=labels, num_inference_steps=2, generator=seeded()).volumes

    assert np.array_equal(sample(1), sample([1, 1]))
    assert not np.array_equal(sample(0), sample(1))
    for wrong in (None, 2, [0, 1, 0], -1):
        with pytest.raises(ValueError, match="class_labels"):
            sample(wrong)
    with pytest.raises(ValueError, match="unconditional"):
        tiny_pipeline()(class_labels=1)


def test_the_callback_sees_and_changes_every_step():
    seen = []

    def silence(pipeline, step, timestep, tensors):
        seen.append(step)
        return {"sample": torch.zeros_like(tensors["sample"])}

    output = tiny_pipeline()(num_inference_steps=3, callback_on_step_end=silence, output_type="pt")
    assert seen == [0, 1, 2]
    assert torch.allclose(output.volumes, torch.tensor(-200.0))


def test_saved_files_keep_hounsfield_units_and_geometry(tmp_path):
    output = tiny_pipeline()(batch_size=2, num_inference_steps=2, generator=seeded())
    paths = output.save(tmp_path / "new" / "folder", first_index=3)
    assert [path.name for path in paths] == ["sample-0003.nii.gz", "sample-0004.nii.gz"]
    for path, volume in zip(paths, output.volumes, strict=True):
        image = nibabel.load(path)
        assert image.get_data_dtype() == np.int16
        assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
        assert image.header.get_zooms() == (2.0, 1.5, 3.0)
        again = diffct.read_volume(path)
        assert np.abs(again.array - volume).max() <= 0.5
        assert np.allclose(again.affine, output.affine)
        assert path.with_name(path.name.replace(".nii.gz", ".png")).stat().st_size > 1000


class TinyDecoder(ModelMixin, ConfigMixin):
    """The contract of a latent model's decoder: doubles every axis."""

    @register_to_config
    def __init__(self, scaling_factor: float = 0.5, block_out_channels: tuple = (1, 1)) -> None:
        super().__init__()
        self.conv = torch.nn.ConvTranspose3d(1, 1, 2, stride=2)

    def decode(self, latents):
        return diffusers.models.autoencoders.vae.DecoderOutput(sample=self.conv(latents))


def test_a_latent_model_is_decoded_to_the_asked_size():
    pipeline = tiny_pipeline()
    pipeline = CT3DPipeline(pipeline.unet, pipeline.scheduler, vae=TinyDecoder(), size=[5, 8, 10])
    shapes = []
    output = pipeline(
        num_inference_steps=2,
        callback_on_step_end=lambda *args: shapes.append(tuple(args[3]["sample"].shape)),
    )
    assert shapes[0] == (1, 1, 3, 4, 5)
    assert output.volumes.shape == (1, 5, 8, 10)


@pytest.mark.parametrize("loader", ["own class", "load_pipeline", "DiffusionPipeline"])
def test_every_way_of_loading_from_a_folder_gives_the_same_volumes(tmp_path, loader):
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(tmp_path)
    assert not list(tmp_path.rglob("*.bin"))
    load = {
        "own class": CT3DPipeline.from_pretrained,
        "load_pipeline": lambda path: diffct.load_pipeline(path, device="cpu"),
        "DiffusionPipeline": diffusers.DiffusionPipeline.from_pretrained,
    }[loader]
    loaded = load(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded) is CT3DPipeline
    assert loaded.config.window_hu == [-1000.0, 600.0]
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["unet"] == ["diffusers", "UNet3DModel"]
    assert index["_class_name"] == "CT3DPipeline (pip install diffct; import diffct)"
    expected = pipeline(num_inference_steps=2, generator=seeded())
    found = loaded(num_inference_steps=2, generator=seeded())
    # Convolutions round differently on memory of another alignment; the weights are equal.
    assert np.allclose(found.volumes, expected.volumes, atol=0.05)
    for name, weight in pipeline.unet.state_dict().items():
        assert torch.equal(loaded.unet.state_dict()[name], weight), name
    assert np.array_equal(found.affine, expected.affine)


def test_half_precision_variant_loads_and_samples(tmp_path):
    tiny_pipeline().to(torch.bfloat16).save_pretrained(tmp_path, variant="bf16")
    loaded = diffct.load_pipeline(tmp_path, variant="bf16", dtype=torch.bfloat16, device="cpu")
    assert loaded.unet.dtype == torch.bfloat16
    volumes = loaded(num_inference_steps=2, generator=seeded()).volumes
    assert volumes.dtype == np.float32
    assert np.isfinite(volumes).all()


def test_no_pickles_are_written_and_a_missing_pipeline_is_named(tmp_path, caplog):
    # diffusers' own tests of pipelines ask for pickles, so that is no error.
    tiny_pipeline().save_pretrained(tmp_path / "p", safe_serialization=False)
    assert "safetensors only" in caplog.text
    assert (tmp_path / "p" / "unet" / "diffusion_pytorch_model.safetensors").is_file()
    assert not list(tmp_path.rglob("*.bin"))
    with pytest.raises(FileNotFoundError, match=r"empty.*no such folder"):
        diffct.load_pipeline(tmp_path / "empty")


def test_the_model_card_says_what_it_was_trained_on(tmp_path):
    pipeline = tiny_pipeline()
    facts = {
        "data": "synthetic pelvis CT phantoms",
        "synthetic": True,
        "license": "apache-2.0",
        "cohort": {"train_scans": 23},
        "updates": 900,
        "losses": {"validation_loss": 0.01234},
    }
    pipeline.register_to_config(training=facts)
    pipeline.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    for phrase in (
        "license: apache-2.0",
        "library_name: diffct",
        "pip install diffct",
        "-1000 to 600 HU",
        "predicts the noise",
        "| train scans | 23 |",
        "| last validation loss | 0.01234 |",
        "These images are synthetic",
        "must not be used for diagnosis",
        "diffct.load_pipeline",
    ):
        assert phrase in card
    assert CT3DPipeline.from_pretrained(tmp_path).config.training == facts
