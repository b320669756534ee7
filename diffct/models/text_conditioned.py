"""A text-conditional denoiser whose text encoder may learn with it."""

from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from diffct.models.text_encoding import embed


class TextConditionedUNet(nn.Module):
    """The network that one optimiser, one moving average and one checkpoint hold.

    Args:
        unet: The denoiser.
        text_encoder: A text encoder that learns along; None if prompts come embedded.
    """

    def __init__(
        self, unet: UNet2DConditionModel, *, text_encoder: PreTrainedModel | None = None
    ) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, noisy: Tensor, timesteps: Tensor, prompt: dict[str, Tensor]) -> Tensor:
        """Predict what the scheduler's `prediction_type` says.

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
