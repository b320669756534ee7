"""The folder of a reader of the documentation after the demos, with tiny random models."""

from collections.abc import Callable
from pathlib import Path

from omegaconf import OmegaConf

import diffct
from diffct import CXRTextToImagePipeline
from diffct.train import CONFIGS, train_ct3d
from tests.pipelines.tiny_flair import head_affine, make_flair_pipeline, write_head

TINY_CT = [
    "tracker=none",
    "data.phantom_scans=4",
    "data.validation_fraction=0.5",
    "unet.down_block_types=[DownBlock3D,DownBlock3D]",
    "unet.up_block_types=[UpBlock3D,UpBlock3D]",
    "unet.block_out_channels=[4,8]",
    "unet.attention_head_dim=8",
    "unet.norm_num_groups=4",
    "train.updates=1",
    "train.batch_size=1",
    "train.validation_draws=1",
]


def fill(place: Path, make_cxr_pipeline: Callable[[], CXRTextToImagePipeline]) -> None:
    """Make what the pages and docstrings speak of: outputs of three systems, and two scans."""
    ct, cxr, brain = (
        # Where the demos write.
        place / OmegaConf.load(CONFIGS / f"{experiment}.yaml").output_dir
        for experiment in ("ct3d/diffusion", "cxr/diffusion", "brain/controlnet")
    )
    train_ct3d.main([f"output_dir={ct}", *TINY_CT])
    make_cxr_pipeline().save_pretrained(cxr / "pipeline")
    make_flair_pipeline().save_pretrained(brain / "pipeline")
    flair = place / "outputs/brain/bids/sub-0000/anat/sub-0000_FLAIR.nii.gz"
    flair.parent.mkdir(parents=True)
    write_head(flair, head_affine("RAS", 2.0), (24, 32, 48))
    pipeline = diffct.load_pipeline(ct / "pipeline", device="cpu")
    (scan,) = pipeline(num_inference_steps=1).save(place)
    scan.rename(place / "scan.nii.gz")
