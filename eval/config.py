"""The settings of an evaluation: those of the command line, by the same names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

NAMES = ("reconstruction", "fidelity", "distribution", "privacy", "findings", "volume")
"""The measurements, in the order of the report."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How a pipeline or a folder of samples is evaluated.

    Attributes:
        variant: Of the pipeline's weights, as "fp16".
        revision: Branch, tag or commit on the Hub.
        train: Folder of training images, if the data are a folder of held-out ones.
        size: (height, width) in pixels that real pictures are cut to around their centres; None for
            what the pipeline was trained at.
        patient_pattern: A regular expression with one group that finds, in each path of folders of
            images, whose image it is; None for DICOM's PatientID, and otherwise for one patient
            for each image.
        split: Which split of a manifest is held out; None for "test", or "validation" if that is
            all there is.
        window_hu: (low, high), for folders of CT; None for the pipeline's, or (-1000, 1000).
        number: How many samples are drawn; None for 16 volumes, 200 films or images, all held-out
            slices, 160 prompts of findings, and 4 translations of a whole scan.
        steps: Denoising steps.
        guidance_scale: Of prompts; None for the pipeline's default.
        seed: Of the first sample.
        batch_size: Samples drawn at once.
        empty_prompt: Whether films are sampled without a prompt, not from held-out reports.
        feature_network: Networks as NAME=WEIGHTS; random ones, which say so, if there are none.
        lpips: Network of `lpips_weights`; None for "squeeze".
        lpips_weights: Its ImageNet weights; None to leave LPIPS out.
        max_images: Use so many images of each set at most; privacy is always asked of all.
        scan: The scan that "volume" translates.
        truth: What the translation should be, on the same grid.
        device: Where networks compute; None for a GPU if there is one.
        out: Folder of samples, pictures, and of the report.

    Examples:
        >>> import diffct
        >>> diffct.EvaluationConfig(number=4, steps=10).batch_size
        8
    """

    variant: str | None = None
    revision: str | None = None
    train: Path | None = None
    size: Sequence[int] | None = None
    patient_pattern: str | None = None
    split: Literal["train", "validation", "test"] | None = None
    window_hu: Sequence[float] | None = None
    number: int | None = None
    steps: int = 50
    guidance_scale: float | None = None
    seed: int = 0
    batch_size: int = 8
    empty_prompt: bool = False
    feature_network: Sequence[str] = ()
    lpips: str | None = None
    lpips_weights: Path | None = None
    max_images: int | None = None
    scan: Path | None = None
    truth: Path | None = None
    device: str | None = None
    out: Path = Path("evaluation")
