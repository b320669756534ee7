"""The translation of FLAIR into T1-weighted MR of a brain, by slices or whole scans."""

from collections.abc import Sequence

from diffct.pipelines.contrast_translation import ContrastTranslationPipeline


class FlairToT1Pipeline(ContrastTranslationPipeline):
    """Translate FLAIR into T1-weighted images of a brain.

    Components, arguments and errors are those of `ContrastTranslationPipeline`. By default the
    condition is FLAIR, and the prompt is that of T1-weighted images.

    Examples:
        >>> import diffct
        >>> pipeline = diffct.FlairToT1Pipeline.from_pretrained("outputs/brain/controlnet/pipeline")
        >>> flair = "outputs/brain/bids/sub-0000/anat/sub-0000_FLAIR.nii.gz"
        >>> slices = pipeline(flair, slice_index=[10, 11], num_inference_steps=4).images
        >>> len(slices)
        2
    """

    usual_prompt = "T1-weighted image of a brain."
    usual_condition = "FLAIR"


def translator_of(
    conditions: Sequence[str], prompt: str | None
) -> type[ContrastTranslationPipeline]:
    """Return the pipeline of a ControlNet: `FlairToT1Pipeline`, or the general one.

    Args:
        conditions: Names of the condition images.
        prompt: The constant prompt that it was trained with.
    """
    flair = FlairToT1Pipeline
    is_flair = (list(conditions), prompt) == ([flair.usual_condition], flair.usual_prompt)
    return flair if is_flair else ContrastTranslationPipeline
