"""Measure what an autoencoder keeps of held-out images: MAE, PSNR, SSIM, MS-SSIM, LPIPS.

    python -m diffct.eval.reconstruction outputs/cxr/ldm/pipeline --data outputs/cxr/films

takes a pipeline, or the folder of an autoencoder alone. It prints means with 95 % intervals over
patients and writes reconstruction.json, with its protocol, and reconstruction.png. LPIPS needs the
ImageNet weights of its backbone (--lpips-weights).
"""

from collections.abc import Sequence

from diffct.evaluation.inputs import parse_inputs, read_inputs
from diffct.evaluation.measurements import present, reconstruction
from diffct.training.run import plain_errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = parse_inputs(__doc__, arguments, out="reconstruction")
    with plain_errors():
        present(reconstruction(read_inputs(options)), options.out)


if __name__ == "__main__":
    main()
