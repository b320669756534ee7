"""diffct: generative medical imaging on Hugging Face diffusers."""
