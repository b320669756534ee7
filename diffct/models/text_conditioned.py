"""A text-conditional denoiser whose text encoder may be trained with it."""

from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from diffct.models.text_encoding import embed


class TextConditionedUNet(nn.Module):
    """A denoiser and its text encoder as one network, with one optimiser and one moving average.

    Args:
        unet: The denoiser.
        text_encoder: A text encoder that is trained too; None if batches hold embedded prompts.
    """

    def __init__(
        self, unet: UNet2DConditionModel, *, text_encoder: PreTrainedModel | None = None
    ) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, noisy: Tensor, timesteps: Tensor, prompt: dict[str, Tensor]) -> Tensor:
        """Return the prediction of the denoiser, as the scheduler's `prediction_type` defines it.

        Args:
            noisy: x_t, (B, C, h, w).
            timesteps: t, (B,).
            prompt: `prompt_embeds` (B, L, width), or the tokens of `text_encoding.tokenize`.

        Returns:
            (B, C, h, w).
        """
        embeddings = prompt.get("prompt_embeds")
        if embeddings is None:
            assert self.text_encoder is not None, "tokens need a text encoder"
            embeddings = embed(self.text_encoder, prompt)
        return self.unet(noisy, timesteps, encoder_hidden_states=embeddings).sample
