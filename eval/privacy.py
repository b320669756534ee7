"""Audit whether samples are copies of training images, and whether losses betray them.

    python -m diffct.eval.privacy outputs/ct3d/pipeline --data outputs/ct3d

samples a pipeline with a seed (or takes a folder of samples), finds the nearest training and the
nearest held-out image of each sample, whatever mirror, zoom or shift lies between them, and prints
how many samples are suspicious by a threshold that real images set; with a pipeline also how well
denoising losses tell training images from held-out ones. It writes privacy.json, with its protocol,
and privacy.png: the closest pairs, as private as the training images.
"""

from collections.abc import Sequence

from diffct.evaluation.inputs import parse_inputs, read_inputs
from diffct.evaluation.measurements import present, privacy
from diffct.training.run import plain_errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = parse_inputs(__doc__, arguments, out="privacy")
    with plain_errors():
        present(privacy(read_inputs(options)), options.out)


if __name__ == "__main__":
    main()
