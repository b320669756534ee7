"""Reports of the chest phantom in the wording of radiologists.

Every sentence is true by itself, so any selection in any order still describes the film: findings
are named with side and size, and denied findings are absent on the side, or sides, in question.
"""

from collections.abc import Sequence

import numpy as np

from diffct.phantoms.chest.truth import ChestFinding, ChestTruth, FindingKind, HeartSize, Side

MAX_SENTENCES, MIN_SENTENCES = 8, 4
OTHER_SIDE_DENIED = 0.1
"""How often a finding of one side is denied on the other. Of the sentences about one side of the
lungs, 1 % are denials in 3,955 real reports (NLM chest X-ray collection), and about 8 % here."""
BOTH_SIDES_AT_ONCE = 0.9
"""How often one sentence names the effusions of both sides: in 69 of 76 of those reports."""

HEART: dict[HeartSize, tuple[str, ...]] = {
    "normal": (
        "The heart size is normal.",
        "Heart size is within normal limits.",
        "The heart is normal in size.",
        "The cardiac silhouette is normal.",
        "The heart is not enlarged.",
        "No cardiomegaly.",
    ),
    "mild": (
        "The heart is mildly enlarged.",
        "There is mild cardiomegaly.",
        "Mild cardiomegaly.",
        "Heart size is mildly enlarged.",
        "The cardiac silhouette is mildly enlarged.",
        "Mild enlargement of the cardiac silhouette.",
    ),
    "moderate": (
        "The heart is moderately enlarged.",
        "There is moderate cardiomegaly.",
        "Moderate cardiomegaly.",
        "Heart size is moderately enlarged.",
        "The cardiac silhouette is moderately enlarged.",
        "Moderate enlargement of the cardiac silhouette.",
    ),
    "severe": (
        "The heart is severely enlarged.",
        "There is severe cardiomegaly.",
        "Severe cardiomegaly.",
        "The heart is massively enlarged.",
        "The cardiac silhouette is severely enlarged.",
        "Severe enlargement of the cardiac silhouette.",
    ),
}

# {size} {side} {zone} {length} are filled in; the first letter is then capitalised.
PRESENT: dict[FindingKind, tuple[str, ...]] = {
    "effusion": (
        "there is a {size} {side} pleural effusion.",
        "{size} {side} pleural effusion.",
        "a {size} pleural effusion is present on the {side}.",
        "there is a {size} {side}-sided pleural effusion.",
        "a {size} {side} effusion is seen.",
        "{size} effusion at the {side} lung base.",
    ),
    "consolidation": (
        "there is a {size} consolidation in the {side} {zone} lung.",
        "{size} {side} {zone} lung consolidation.",
        "a {size} opacity in the {side} {zone} lung is consistent with pneumonia.",
        "{size} airspace opacity in the {side} {zone} zone.",
        "a {size} focal consolidation is seen in the {side} {zone} lung.",
        "there is {size} consolidation of the {side} {zone} lung zone.",
    ),
    "nodule": (
        "there is a {size} nodule in the {side} {zone} lung.",
        "{size} {side} {zone} lung nodule.",
        "a nodule of about {length} is seen in the {side} {zone} lung.",
        "a {size} round nodule projects over the {side} {zone} lung.",
        "{size} pulmonary nodule in the {side} {zone} zone.",
        "nodule of about {length} in the {side} {zone} lung zone.",
    ),
    "pneumothorax": (
        "there is a {size} {side} pneumothorax.",
        "{size} {side} pneumothorax.",
        "a {size} pneumothorax is present on the {side}.",
        "there is a {size} {side}-sided pneumothorax.",
        "a {size} {side} apical pneumothorax is seen.",
        "{size} pneumothorax on the {side} with a visible pleural line.",
    ),
}
NODULE_LENGTH = {"small": "1 cm", "moderate": "2 cm", "large": "3 cm"}

BOTH_SIDES = {
    True: (
        "there are {left} bilateral pleural effusions.",
        "{left} bilateral pleural effusions.",
        "{left} pleural effusions on both sides.",
        "bilateral {left} pleural effusions are present.",
        "both sides show {left} pleural effusions.",
    ),
    False: (
        "bilateral pleural effusions, {left} on the left and {right} on the right.",
        "there are bilateral pleural effusions, {right} on the right and {left} on the left.",
        "{left} left and {right} right pleural effusions.",
        "there is a {right} right and a {left} left pleural effusion.",
        "pleural effusions on both sides, {left} on the left and {right} on the right.",
    ),
}

NAMES: dict[FindingKind, str] = {
    "effusion": "pleural effusion",
    "consolidation": "focal consolidation",
    "nodule": "pulmonary nodule",
    "pneumothorax": "pneumothorax",
}
ABSENT = (
    "there is no {names}.",
    "no {names}.",
    "no evidence of {names}.",
    "no {names} is seen.",
    "there is no evidence of {names}.",
)
ABSENT_ONE: dict[FindingKind, tuple[str, ...]] = {
    "effusion": ("the costophrenic angles are sharp.", "both costophrenic angles are clear."),
    "consolidation": ("no focal airspace opacity.", "there is no evidence of pneumonia."),
    "nodule": ("no suspicious nodule.", "there is no lung nodule."),
    "pneumothorax": ("no pneumothorax on either side.", "neither lung is collapsed."),
}
ABSENT_ON_SIDE = (
    "no {side}-sided {name}.",
    "there is no {name} on the {side}.",
    "no {name} on the {side}.",
    "there is no {side} {name}.",
    "no {side} {name} is seen.",
)
CLEAR_SIDE = (
    "the {side} lung is clear.",
    "the {side} lung shows no abnormality.",
    "no abnormality of the {side} lung.",
    "clear {side} lung.",
    "the {side} hemithorax is unremarkable.",
)
CLEAR_LUNGS = (
    "the lungs are clear.",
    "both lungs are clear.",
    "clear lungs.",
    "the lungs are well expanded and clear.",
    "lungs and pleural spaces are clear.",
)

FILLERS = (
    (
        "no acute osseous abnormality.",
        "the bones are intact.",
        "osseous structures are unremarkable.",
        "no rib fracture is seen.",
        "the visualized bony structures are unremarkable.",
    ),
    (
        "the aortic knob is well seen.",
        "the trachea is visible and patent.",
        "the hilar contours are normal.",
        "there is a gastric air bubble under the left diaphragm.",
        "no free air under the diaphragm.",
    ),
    (
        "PA view of the chest.",
        "frontal radiograph of the chest.",
        "single frontal view of the chest.",
        "upright PA chest radiograph.",
        "chest radiograph in one view.",
    ),
)
NOTHING_ACUTE = (
    "no acute cardiopulmonary process.",
    "no acute cardiopulmonary abnormality.",
    "normal chest radiograph.",
    "unremarkable chest radiograph.",
    "no acute cardiopulmonary disease.",
    "normal chest.",
)
SUMMARY = (
    "impression: {findings}.",
    "findings are {findings}.",
    "the film shows {findings}.",
    "in summary, {findings}.",
    "overall, {findings}.",
)


def write_report(truth: ChestTruth, rng: np.random.Generator) -> list[str]:
    """Write the report of a film.

    Args:
        truth: Findings and heart size on the film.
        rng: Source of the wording.

    Returns:
        Four to eight sentences, each true by itself. Heart size and every finding are named.
    """
    present = [_choose(HEART[truth.heart_size], rng), *_name_findings(truth.findings, rng)]
    absent = _deny_findings(truth, rng)
    summary = _summarise(truth, rng)
    fillers = [_choose(wordings, rng) for wordings in FILLERS]
    rng.shuffle(fillers)
    length = int(rng.integers(MIN_SENTENCES, MAX_SENTENCES + 1))
    # A report that is cut to its length keeps denied findings rather than remarks on bones.
    optional = [*absent, *([summary] if rng.random() < 0.6 else []), *fillers]
    report = present + optional[: max(length - len(present), 0)]
    body = [sentence for sentence in report if sentence != summary]
    rng.shuffle(body)
    return [_capital(sentence) for sentence in body + [s for s in report if s == summary]]


def _name_findings(findings: Sequence[ChestFinding], rng: np.random.Generator) -> list[str]:
    """Name every finding; effusions of both sides usually share a sentence."""
    sentences = []
    sizes = {f.side: f.severity for f in findings if f.kind == "effusion"}
    together = len(sizes) == 2 and rng.random() < BOTH_SIDES_AT_ONCE
    if together:
        wording = _choose(BOTH_SIDES[sizes["left"] == sizes["right"]], rng)
        sentences.append(wording.format(**sizes))
    for finding in findings:
        if not (together and finding.kind == "effusion"):
            sentences.append(_name_finding(finding, rng))
    return sentences


def _name_finding(finding: ChestFinding, rng: np.random.Generator) -> str:
    return _choose(PRESENT[finding.kind], rng).format(
        size=_size(finding),
        side=finding.side,
        zone=finding.zone,
        length=NODULE_LENGTH[finding.severity],
    )


def _deny_findings(truth: ChestTruth, rng: np.random.Generator) -> list[str]:
    """Deny absent findings: kinds on both sides, kinds on one side, and all of a clear side."""
    sides: dict[FindingKind, set[Side]] = {kind: set() for kind in NAMES}
    for finding in truth.findings:
        sides[finding.kind].add(finding.side)
    absent = [kind for kind in rng.permutation(list(NAMES)) if not sides[kind]]
    sentences = []
    while absent:
        count = int(rng.integers(1, min(len(absent), 3) + 1))
        kinds, absent = absent[:count], absent[count:]
        own = ABSENT_ONE[kinds[0]] if count == 1 else ()
        names = _enumerate([NAMES[kind] for kind in kinds], "or")
        sentences.append(_choose(ABSENT + own, rng).format(names=names))
    for kind, present in sides.items():
        if len(present) == 1 and rng.random() < OTHER_SIDE_DENIED:
            other = "right" if "left" in present else "left"
            sentences.append(_choose(ABSENT_ON_SIDE, rng).format(side=other, name=NAMES[kind]))
    affected = {finding.side for finding in truth.findings}
    if not affected:
        sentences.append(_choose(CLEAR_LUNGS, rng))
    elif len(affected) == 1:
        clear = "right" if "left" in affected else "left"
        sentences.append(_choose(CLEAR_SIDE, rng).format(side=clear))
    rng.shuffle(sentences)
    return sentences


def _summarise(truth: ChestTruth, rng: np.random.Generator) -> str:
    """Name all findings in one sentence, or state that there are none."""
    names = [f"{_size(f)} {f.side} {_place(f)}{_short(f)}" for f in truth.findings]
    if truth.heart_size != "normal":
        names.append(f"{truth.heart_size} cardiomegaly")
    if not names:
        return _choose(NOTHING_ACUTE, rng)
    rng.shuffle(names)
    return _choose(SUMMARY, rng).format(findings=_enumerate(names, "and"))


def _size(finding: ChestFinding) -> str:
    # Radiologists do not write "moderate nodule".
    nodule = finding.kind == "nodule" and finding.severity == "moderate"
    return "moderate-sized" if nodule else finding.severity


def _place(finding: ChestFinding) -> str:
    return f"{finding.zone} lung " if finding.zone else ""


def _short(finding: ChestFinding) -> str:
    return "pleural effusion" if finding.kind == "effusion" else finding.kind


def _enumerate(names: Sequence[str], word: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def _choose(wordings: Sequence[str], rng: np.random.Generator) -> str:
    return wordings[int(rng.integers(len(wordings)))]


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
