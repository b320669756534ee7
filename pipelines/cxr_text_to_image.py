"""Chest radiographs from sentences of radiology reports, by latent diffusion."""

from diffct.pipelines.text_to_image import TextToImagePipeline


class CXRTextToImagePipeline(TextToImagePipeline):
    """Sample chest radiographs that show what a prompt describes in the words of a report.

    Films have one channel, bright where the body is dense, with the patient's left on the viewer's
    right. Components, arguments and errors are those of `TextToImagePipeline`.

    Examples:
        >>> import diffct
        >>> folder = "outputs/cxr/diffusion/pipeline"
        >>> pipeline = diffct.CXRTextToImagePipeline.from_pretrained(folder)
        >>> prompt = "There is a large left pleural effusion."
        >>> film = pipeline(prompt, num_inference_steps=4, guidance_scale=4.0).images[0]
        >>> film.mode  # PIL, gray
        'L'
    """

    modality = "film"
    card_example = "Small left pleural effusion."

    def card_subject(self) -> tuple[str, str]:
        """Return what the images show and what the prompts are, for the model card."""
        return "chest radiographs", "sentences as radiologists write them"
