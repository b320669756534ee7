"""Compare generated images with the true ones, pair by pair, beside trivial translations.

    python -m diffct.eval.fidelity outputs/brain/controlnet/pipeline --data outputs/brain/slices

translates the slices of held-out subjects and prints MAE, PSNR, SSIM and MS-SSIM with 95 %
intervals over subjects, for the model, for its autoencoder alone, which no translation in its
latent space beats, and for translations that learn nothing. Where the manifest has labels of
lesions, as phantoms have, it also tells whether they are found at their places. It writes
fidelity.json, with its protocol, and translation.png. With a folder in place of the pipeline,
images are compared with held-out ones of the same names.
"""

from collections.abc import Sequence

from diffct.evaluation.inputs import parse_inputs, read_inputs
from diffct.evaluation.measurements import fidelity, present
from diffct.training.run import plain_errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = parse_inputs(__doc__, arguments, out="fidelity")
    with plain_errors():
        present(fidelity(read_inputs(options)), options.out)


if __name__ == "__main__":
    main()
