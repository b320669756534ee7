"""The privacy audit: are samples copies of training images, and do losses reveal membership?

Four questions, each with real images as the yardstick:

1. Is a sample nearer to a training image than images of other patients are, under any mirror, zoom
   or shift, by anatomy or by detail (`diffct.privacy.neighbours`, `memorisation`)?
2. Is it nearer in the features of a network?
3. Do samples as a set lie nearer to training patients than chance explains (`training_share`)?
4. Does the model denoise training images better than held-out ones (`membership`)?
"""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch

from diffct.privacy.comparisons import CohortSearch, Features, compare, compare_features
from diffct.privacy.copies import Copies, weigh
from diffct.privacy.identical import find_identical
from diffct.privacy.image_stack import Images, ImageStack, stack_images
from diffct.privacy.membership import MembershipAttack, MembershipLosses, membership_attack
from diffct.privacy.memorisation import Memorisation
from diffct.privacy.neighbours import COMPARISONS, Nearest
from diffct.privacy.report import PrivacyReport
from diffct.privacy.thresholds import MAX_REAL_IMAGES, MIN_REAL_PATIENTS
from diffct.privacy.training_share import training_share

NO_YARDSTICK = (
    "copies are told from relatives by real images, each compared with those of other patients;"
    f" give images of {MIN_REAL_PATIENTS} training or held-out patients at least."
)
ONE_TRANSLATED = (
    "a translation is compared with other patients' images than its own, and all held-out images"
    " are of one patient; give images of 2 held-out patients at least."
)


def audit(
    samples: Images,
    train: Images,
    held_out: Images,
    *,
    value_range: Sequence[float],
    sample_patients: Sequence[Hashable] | None = None,
    train_patients: Sequence[Hashable] | None = None,
    held_out_patients: Sequence[Hashable] | None = None,
    features: Mapping[str, Features] | None = None,
    losses: MembershipLosses | None = None,
    max_real: int = MAX_REAL_IMAGES,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> PrivacyReport:
    """Audit the samples of any generator for copies of its training images.

    All images have one size, one spacing and one range of values, as the generator saw them: images
    that were resampled or stored differently in one set look like those of other patients.

    Args:
        samples: Generated images, (N, H, W), or volumes, (N, D, H, W), of one channel.
        train: All images that the generator was trained on.
        held_out: Images of other patients, which the generator has never seen.
        value_range: The values of black and white: (0, 1), (0, 255), or the window of HU to which
            all images are clipped.
        sample_patients: For translations, the patient whose image each was made from: they are not
            compared with that patient's images. None if samples belong to no patient.
        train_patients: The patient of each image; None if each image is of another patient. Images
            of one patient are alike, so patients are counted, not images.
        held_out_patients: The same for held-out images.
        features: Further comparisons by name: networks that describe images.
        losses: Denoising losses, for the membership attack.
        max_real: Number of real images of each set that determine the thresholds; each takes as
            long as a sample.
        seed: Seed of the permutation test.
        device: Where neighbours are searched: "cpu", "cuda".
        progress: Whether to show progress bars.

    Returns:
        The findings, in figures and in words.

    Raises:
        ValueError: Images differ in size, are not finite or exceed the range, a patient is in both
            real sets, or the real images are of fewer than 3 patients.

    Examples:
        >>> import numpy as np
        >>> from diffct.privacy import audit
        >>> rng = np.random.default_rng(0)
        >>> train, held_out = rng.random((6, 24, 24)), rng.random((20, 24, 24))
        >>> samples = np.stack([*rng.random((2, 24, 24)), train[0, :, ::-1]])
        >>> report = audit(samples, train, held_out, value_range=(0, 1), max_real=6)
        >>> report.copies.suspicious, report.answer.state
        (1, 'bad')
    """
    names = ("samples", "train", "held_out")
    owners = (sample_patients, train_patients, held_out_patients)
    made, seen, unseen = (
        stack_images(images, name=name, patients=patients, value_range=value_range)
        for images, name, patients in zip((samples, train, held_out), names, owners, strict=True)
    )
    _check(made, seen, unseen)
    real = [
        (seen, unseen)[place].pick(max_real)
        for place in choose_yardstick(seen.patients, unseen.patients)
    ]
    if not real:
        raise ValueError(NO_YARDSTICK)
    # The quick part first, so that wrong losses are reported before the long search.
    attack = None if losses is None else _attack(losses, seen, unseen)
    search = CohortSearch(seen, unseen, device=device, progress=progress)
    nearest = search.nearest_of(made)
    found = compare(nearest, [pair for part in real for pair in search.nearest_of(part)], real)
    for name, describe in (features or {}).items():
        found[name] = compare_features(describe, made, (seen, unseen), real)
    share = training_share(
        [_nearest_patient(pair, seen, unseen) for pair in nearest],
        train=seen.patients,
        held_out=unseen.patients,
        seed=seed,
    )
    # A translation should look like the true image of its patient.
    identical = {
        sample: image
        for sample, image in find_identical(made, seen).items()
        if made.patients[sample] != seen.patients[image]
    }
    return PrivacyReport(
        copies=_weigh(nearest, found, seen, unseen, identical=len(identical)),
        comparisons=found,
        training_share=share,
        membership=attack,
        nearest=nearest,
        identical=identical,
        held_out_images=len(unseen),
        real_images=tuple(len(part) for part in real),
        settings=search.settings,
    )


def choose_yardstick(train: Sequence[Hashable], held_out: Sequence[Hashable]) -> list[int]:
    """Choose the sets of real images that can be compared with other patients of their own set.

    Together they need three patients or more; fewer determine no threshold, and none is returned.

    Args:
        train: The patient of each training image.
        held_out: The patient of each held-out image.

    Returns:
        0 for the training images, 1 for the held-out ones.
    """
    patients = [len(set(owners)) for owners in (train, held_out)]
    found = [place for place, number in enumerate(patients) if number > 1]
    return found if sum(patients[place] for place in found) >= MIN_REAL_PATIENTS else []


def _check(samples: ImageStack, train: ImageStack, held_out: ImageStack) -> None:
    """Refuse sets that cannot be compared."""
    for stack in (samples, held_out):
        if stack.size != train.size:
            raise ValueError(
                f"Images of {stack.name} have the size {stack.size}, those of train {train.size}."
                " Bring all to one size and spacing."
            )
    common = set(train.patients) & set(held_out.patients)
    if common:
        raise ValueError(
            f"{len(common)} patients have images in train and in held_out, so they are not held"
            " out."
        )
    if set(held_out.patients) == set(samples.patients[:1]):
        raise ValueError(ONE_TRANSLATED)


def _nearest_patient(pair: Nearest, train: ImageStack, held_out: ImageStack) -> Hashable:
    """Return whose image is the nearest neighbour overall, by anatomy."""
    nearest, other = (neighbours.anatomy for neighbours in pair)
    if nearest.distance < other.distance:
        return train.patients[nearest.index]
    return held_out.patients[other.index]


def _weigh(
    nearest: Sequence[Nearest],
    found: Mapping[str, Memorisation],
    train: ImageStack,
    held_out: ImageStack,
    *,
    identical: int,
) -> Copies:
    """Count near pairs and the training patients that they are near to."""
    sources = {
        train.patients[getattr(nearest[sample].train, by).index]
        for by in COMPARISONS
        for sample in np.flatnonzero(found[by].suspicious).tolist()
    }
    return weigh(
        [found[by] for by in COMPARISONS],
        sources=len(sources),
        held_out_patients=len(set(held_out.patients)),
        identical=identical,
    )


def _attack(losses: MembershipLosses, train: ImageStack, held_out: ImageStack) -> MembershipAttack:
    """Measure how well losses reveal training images."""
    groups = []
    for values, patients, stack in (
        (losses.train, losses.train_patients, train),
        (losses.held_out, losses.held_out_patients, held_out),
    ):
        if patients is None and len(values) != len(stack):
            raise ValueError(
                f"There are {len(values)} losses for {len(stack)} images of {stack.name}: give one"
                " for each image, or say whose each is (MembershipLosses)."
            )
        groups.append(stack.patients if patients is None else patients)
    return membership_attack(
        losses.train, losses.held_out, train_groups=groups[0], held_out_groups=groups[1]
    )
