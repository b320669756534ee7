"""NaN and impossible lengths are refused wherever a user gives a number."""

import re
from dataclasses import dataclass, field

import nibabel
import numpy as np
import pytest
from diffusers import DDPMScheduler

from diffct.config import POSITIVE, load_config, within
from diffct.data.volume_dataset import CTDataConfig, check_settings
from diffct.imaging.volume import Volume, canonical_affine, read_volume, write_volume
from diffct.models import UNet3DModel
from diffct.pipelines import CT3DPipeline
from diffct.train import train_ct3d, train_diffusion
from diffct.training.objectives import DiffusionObjective

NAN = float("nan")


@dataclass
class Section:
    lr: float = field(default=1e-4, metadata=POSITIVE)
    zoom_range: list[float] = field(default_factory=lambda: [0.9, 1.1], metadata=within(0, 2))
    factors: dict[str, float] = field(default_factory=dict, metadata=within(0))


@dataclass
class Settings:
    optim: Section = field(default_factory=Section)


@pytest.mark.parametrize(
    ("key", "text"), [("lr", ".nan"), ("lr", ".inf"), ("zoom_range", "[.nan,2]")]
)
def test_a_setting_is_a_finite_number(tmp_path, key, text):
    file = tmp_path / "a.yaml"
    file.write_text(f"optim: {{{key}: {text}}}\n")
    with pytest.raises(ValueError, match=f"Configuration key 'optim.{key}' is .*finite numbers"):
        load_config(Settings, file)
    file.write_text("optim: {}\n")
    with pytest.raises(ValueError, match=f"Configuration key 'optim.{key}' needs a number, not"):
        load_config(Settings, file, [f"optim.{key}={text}"])


@pytest.mark.parametrize(
    ("override", "accepted"),
    [
        ("lr=0", "more than 0"),
        ("zoom_range=[0.9,2.5]", "0 to 2"),
        ("factors.conv_in=-1", "0 or more"),
    ],
)
def test_a_setting_is_within_its_bounds(tmp_path, override, accepted):
    file = tmp_path / "a.yaml"
    file.write_text("optim: {}\n")
    key = override.partition("=")[0].partition(".")[0]
    with pytest.raises(ValueError, match=f"Configuration key 'optim.{key}' is .*give {accepted}"):
        load_config(Settings, file, [f"optim.{override}"])


@pytest.mark.parametrize(
    ("script", "override"),
    [
        (train_ct3d, "train.updates=0"),
        (train_ct3d, "train.gradient_accumulation=0"),
        (train_ct3d, "train.validation_draws=0"),
        (train_ct3d, "train.validate_every=-1"),
        (train_ct3d, "optim.lr=-1"),
        (train_ct3d, "optim.max_grad_norm=0"),
        (train_ct3d, "ema.decay=2"),
        (train_ct3d, "preview.steps=0"),
        (train_ct3d, "seed=-1"),
        (train_diffusion, "prompt.empty_probability=2"),
        (train_diffusion, "prompt.max_sentences=0"),
        (train_diffusion, "augmentation.probability=-0.1"),
        (train_diffusion, "text_encoder.small.width=0"),
        (train_diffusion, "data.phantom_films=0"),
        (train_diffusion, "objective.timestep_power=0"),
    ],
)
def test_a_training_that_cannot_be_is_refused_before_it_begins(tmp_path, script, override, capsys):
    with pytest.raises(SystemExit):
        script.main([f"output_dir={tmp_path / 'run'}", override])
    assert f"Configuration key '{override.partition('=')[0]}' is" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scheduler.beta_schedule=cubic", "scheduler: cubic is not implemented"),
        ("scheduler.num_train_timesteps=0", "scheduler: DDPMScheduler is not a denoising"),
        ("preview.steps=5000", "in 5000 steps it fails"),
        ("unet.norm_num_groups=0", "norm_num_groups must be at least 1, got (1, 1, 1, 0)"),
        ("unet.layers_per_block=0", "layers_per_block, norm_num_groups must be at least 1"),
        ("unet.in_channels=3", "unet.in_channels and out_channels must be 1"),
        ("optim.schedule=cosin", "optim.schedule='cosin'; accepted: linear, cosine"),
    ],
)
def test_impossible_sections_are_refused_by_name_before_the_data(tmp_path, override, message):
    with pytest.raises(SystemExit, match=f"ERROR: .*{re.escape(message)}"):
        train_ct3d.main([f"output_dir={tmp_path / 'run'}", override])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("length", [0.0, NAN, 1e-3, 3000.0])
def test_what_could_not_be_read_is_not_written(tmp_path, length):
    array = np.zeros((12, 12, 12), dtype=np.float32)
    affine = np.diag([length, 2.0, 2.0, 1.0])
    with pytest.raises(ValueError, match=r"a\.nii: its (affine|spacing|field of view)"):
        write_volume(Volume(array, affine), tmp_path / "a.nii")
    assert not list(tmp_path.iterdir())
    nibabel.save(nibabel.Nifti1Image(array, np.diag([2.0, 2.0, 2.0, 1.0])), tmp_path / "b.nii")
    write_volume(read_volume(tmp_path / "b.nii"), tmp_path / "c.nii")
    write_volume(Volume(array, canonical_affine((12, 12, 12), (2, 2, 2))), tmp_path / "d.nii")


@pytest.mark.parametrize("length", [0.0, -1.0, NAN, 1e-3, 3000.0])
def test_spacings_of_settings_and_pipelines_are_those_of_people(length):
    with pytest.raises(ValueError, match=r"data\.spacing_mm is .*from 0\.05 to 20 mm"):
        check_settings(CTDataConfig(spacing_mm=[1.0, length, 1.0]))
    unet = UNet3DModel(
        block_out_channels=(8,),
        down_block_types=("DownBlock3D",),
        up_block_types=("UpBlock3D",),
        norm_num_groups=4,
        in_channels=1,
        out_channels=1,
    )
    with pytest.raises(ValueError, match=r"spacing_mm is .*from 0\.05 to 20 mm"):
        CT3DPipeline(unet, DDPMScheduler(), spacing_mm=[1.0, 1.0, length])
    with pytest.raises(ValueError, match=r"window_hu is .*low before high"):
        CT3DPipeline(unet, DDPMScheduler(), window_hu=[NAN, 1000.0])


def test_weights_of_the_loss_are_positive():
    with pytest.raises(ValueError, match="min_snr_gamma must be positive, got nan"):
        DiffusionObjective(DDPMScheduler(), min_snr_gamma=NAN)
    with pytest.raises(ValueError, match="timestep_power must be positive, got nan"):
        DiffusionObjective(DDPMScheduler(), timestep_power=NAN)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timesteps": [-3]}, "a list of numbers, none below 0"),
        ({"timesteps": [1.5]}, "must be whole numbers"),
        ({"timesteps": 999}, "a list of numbers"),
        ({"timesteps": ["a"]}, "a list of numbers"),
        ({"generator": 5}, "not int"),
        ({"generator": [5]}, "not int"),
        ({"latents": "noise"}, "latents has the shape str"),
        ({"callback_on_step_end": 5}, "is not callable"),
    ],
)
def test_a_pipeline_refuses_impossible_arguments(options, message):
    unet = UNet3DModel(
        down_block_types=("DownBlock3D",),
        up_block_types=("UpBlock3D",),
        block_out_channels=(8,),
        norm_num_groups=4,
        attention_head_dim=8,
    )
    pipeline = CT3DPipeline(unet=unet, scheduler=DDPMScheduler(), size=[4, 8, 8])
    with pytest.raises(ValueError, match=message):
        pipeline(1, **{"num_inference_steps": 2} | options)
