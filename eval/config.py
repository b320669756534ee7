"""The settings of an evaluation, with the names of the command line."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

NAMES = ("reconstruction", "fidelity", "distribution", "privacy", "findings", "volume")
"""The measurements, in the order of the report."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Settings for the evaluation of a pipeline or of a folder of samples.

    Attributes:
        variant: Variant of the pipeline's weights, such as "fp16".
        revision: Branch, tag or commit on the Hub.
        train: Folder of training images, if the data are a folder of held-out images.
        size: (height, width) in pixels that real pictures are cut to around their centres; None for
            the size that the pipeline was trained at.
        patient_pattern: A regular expression with one group that finds the patient in the path of
            each image, for folders; None for DICOM's PatientID, without which each image counts as
            another patient.
        split: The split of a manifest that is held out; None for "test", or "validation" if there
            is no test image.
        window_hu: (low, high), for folders of CT; None for the pipeline's, or (-1000, 1000).
        number: Number of samples to draw; None for 16 volumes, 200 films or images, all held-out
            slices, 160 prompts of findings, and 4 translations of a whole scan.
        steps: Denoising steps.
        guidance_scale: Guidance by prompts or conditions; None for the pipeline's default.
        seed: Seed of the first sample.
        batch_size: Number of samples drawn at once.
        empty_prompt: Whether films are sampled with the empty prompt, not with held-out reports.
        feature_network: Networks as NAME=WEIGHTS; without any, random networks, which the report
            says.
        lpips: Network of `lpips_weights`; None for "squeeze".
        lpips_weights: Its ImageNet weights; None to leave LPIPS out.
        max_images: Largest number of images of each set to use; privacy always uses all.
        scan: The scan that "volume" translates.
        truth: The true scan that the translation is compared with, on the same grid.
        device: Where networks compute; None for a GPU if there is one.
        out: Folder for samples, pictures and the report.

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
