"""Every experiment that ships can be read, and builds the networks that it describes."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from diffct.config import load_config
from diffct.train.train_autoencoder import AutoencoderConfig
from diffct.train.train_controlnet import ControlTrainingConfig
from diffct.train.train_controlnet import check_settings as check_control
from diffct.train.train_ct3d import CT3DConfig
from diffct.train.train_text_to_image import TextToImageConfig, check_settings
from diffct.training.reconstruction import make_autoencoder

CONFIGS = sorted((Path(__file__).parents[2] / "train" / "configs").glob("*.yaml"))
SCHEMAS = {"autoencoder": AutoencoderConfig, "ldm": TextToImageConfig}
SCHEMAS |= {"controlnet": ControlTrainingConfig, "ct3d": CT3DConfig}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_experiment_can_be_read(path):
    (kind,) = [name for name in SCHEMAS if name in path.stem]
    missing = [
        k
        for k, v in OmegaConf.to_container(OmegaConf.load(path)).get("data", {}).items()
        if v == "???"
    ]
    config = load_config(SCHEMAS[kind], path, [f"data.{key}=somewhere" for key in missing])
    if kind == "autoencoder":
        make_autoencoder(config.autoencoder, size=config.data.size, seed=0)
    elif kind == "ldm":
        check_settings(config)
    elif kind == "controlnet":
        check_control(config)
