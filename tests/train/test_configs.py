"""The configurations of the package can be read, and describe networks that can be built."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from diffct.config import load_config
from diffct.train.train_autoencoder import AutoencoderConfig
from diffct.train.train_controlnet import ControlTrainingConfig
from diffct.train.train_controlnet import check_settings as check_control
from diffct.train.train_ct3d import CT3DConfig
from diffct.train.train_diffusion import TextToImageConfig, check_settings
from diffct.training.reconstruction import make_autoencoder

CONFIGS = sorted((Path(__file__).parents[2] / "train" / "configs").glob("*/*.yaml"))
SCHEMAS = {
    "autoencoder": AutoencoderConfig,
    "diffusion": TextToImageConfig,
    "controlnet": ControlTrainingConfig,
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_experiment_can_be_read(path):
    kind = path.stem.removesuffix("-published")
    schema = CT3DConfig if path.parent.name == "ct3d" else SCHEMAS[kind]
    missing = [
        k
        for k, v in OmegaConf.to_container(OmegaConf.load(path)).get("data", {}).items()
        if v == "???"
    ]
    config = load_config(schema, path, [f"data.{key}=somewhere" for key in missing])
    if kind == "autoencoder":
        make_autoencoder(config.autoencoder, size=config.data.size, seed=0)
    elif schema is TextToImageConfig:
        check_settings(config)
    elif kind == "controlnet":
        check_control(config)
