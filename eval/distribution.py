"""Compare samples with held-out images as sets: distances, coverage, diversity, CT realism.

    python -m diffct.eval.distribution outputs/cxr/ldm/pipeline --data outputs/cxr/films \
        --feature-network xrv-densenet121-all=weights.pt

samples a pipeline with a seed (or takes a folder of samples) and prints Fréchet distance, KID, MMD,
precision, recall, density and coverage in the features of each network, and the mean MS-SSIM of
pairs; for CT also HU, tissue volumes, noise and continuity, which need no network. Every figure
stands beside that of training images, the yardstick. It writes distribution.json, with its
protocol, and pictures. Without --feature-network, features are random, and the figures say so.
"""

from collections.abc import Sequence

from diffct.evaluation.inputs import parse_inputs, read_inputs
from diffct.evaluation.measurements import distribution, present
from diffct.training.run import plain_errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = parse_inputs(__doc__, arguments, out="distribution")
    with plain_errors():
        present(distribution(read_inputs(options)), options.out)


if __name__ == "__main__":
    main()
