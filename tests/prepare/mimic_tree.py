"""A small folder in the exact layout of MIMIC-CXR-JPG 2.x with its reports, and seeded faults.

All data are invented. Each film shows its number as a bar code of bright and dark blocks, and its
report names the same number in millimetres, so that a film with the wrong report is detected.

    python tests/prepare/mimic_tree.py FOLDER [PATIENTS]
"""

import csv
import gzip
import io
import json
import random
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

METADATA = (
    *("dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition"),
    *("Rows", "Columns", "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning"),
    *("ViewCodeSequence_CodeMeaning", "PatientOrientationCodeSequence_CodeMeaning"),
)
CODE_BITS = 10

_HEAD = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with chest pain, hx of CHF.  // eval for pneumonia vs. effusion?

 TECHNIQUE:  Chest PA and lateral

 COMPARISON:  ___, CT chest ___.

"""
_FOOT = """

 NOTIFICATION:  The findings were discussed with Dr. ___ by Dr. ___ on the telephone
 on ___ at 3:15 p.m., 5 minutes after discovery.
"""
REPORTS = {
    "usual": _HEAD
    + """ FINDINGS:

 A nodule in the right upper lobe measures approx. {mm} mm, unchanged since ___.  There is no
 pleural effusion or pneumothorax.  The cardiac silhouette, as measured by Dr. ___, is
 enlarged.

 IMPRESSION:

 No acute cardiopulmonary process.""",
    "numbered": _HEAD
    + """ IMPRESSION:

 1.  Nodule of {mm} mm in the right
 upper lobe
 2.  Small left pleural effusion.
 3.  ___ catheter ends in the low SVC""",
    "impression only": _HEAD + " IMPRESSION:  Nodule of {mm} mm.  No pneumonia.",
    "findings only": _HEAD + " FINDINGS:  Nodule of {mm} mm.  Heart size is normal.",
    "empty findings": _HEAD + " FINDINGS:\n\n IMPRESSION:\n\n Nodule of {mm} mm.",
    "both in one": _HEAD + " FINDINGS AND IMPRESSION:  Nodule of {mm} mm.  Clear lungs.",
    "lower case": "final report\n history: cough.\n\n findings: nodule of {mm} mm in size. "
    "no effusion.\n impression: stable nodule.",
    "one line": "FINAL REPORT HISTORY: Cough. FINDINGS: Nodule of {mm} mm. No effusion. "
    "IMPRESSION: Stable nodule.",
    "subheadings": _HEAD
    + """ FINDINGS:
 LUNGS:  Nodule of {mm} mm.
 HEART:  Normal in size.
 IMPRESSION:  Stable.""",
    "wet read": """ WET READ: ___ ___ ___ 10:25 PM
  Pneumonia of 999 mm, prelim.
 ______________________________________________________________________________
"""
    + _HEAD
    + " IMPRESSION:  Nodule of {mm} mm.",
    "no sections": """                                 FINAL REPORT
 PA AND LATERAL CHEST, ___

 HISTORY:  Chest pain.

 Two views of the chest show a nodule of {mm} mm.
""",
}
# Faults of a study, and the expected reason for dropping it; None: it must be kept.
FAULTS = {
    "no report": "no report",
    "empty report": "no findings or impression",
    "no sections": "no findings or impression",
    "missing jpg": "image file missing",
    "truncated jpg": "image unreadable",
    "empty jpg": "image unreadable",
    "web page": "image unreadable",
    "tiny": "image too small",
    "constant": "image constant",
    "colour": "image in colour",
    "not in split": "not in the split file",
    "listed twice": "image listed twice",
    "AP": "not a PA view",
    "no view": "not a PA view",
    "latin-1": None,
    "windows lines": None,
    "gray RGB": None,
    "lower case view": None,
}


# Reasons that are checked before a patient in two splits is.
FOUND_FIRST = (
    *("not a PA view", "not in the split file", "no report", "no findings or impression"),
)
SPLITS = {"train": "train", "validate": "validation", "test": "test"}


def film_pixels(number: int, shape: tuple[int, int], view: int = 0) -> np.ndarray:
    """Draw a smooth gray film whose upper rows are the bar code of its number."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]] / np.array(shape)[:, None, None]
    film = 90 + 60 * np.sin(3 * rows + number + view) * np.cos(4 * columns)
    bits = [number >> place & 1 for place in range(CODE_BITS)]
    code = np.array(bits)[np.arange(shape[1]) * CODE_BITS // shape[1]]
    film[: shape[0] // 4] = 20 + 210 * code
    return film.astype(np.uint8)


def read_code(film: np.ndarray) -> int:
    """Return the number on a film of any size in [0, 1]."""
    columns = ((np.arange(CODE_BITS) + 0.5) * film.shape[1] / CODE_BITS).astype(int)
    bits = film[film.shape[0] // 8, columns] > 0.5
    return int(sum(1 << place for place, bit in enumerate(bits) if bit))


def write_tree(
    folder: Path, *, patients: int = 200, shape: tuple[int, int] = (160, 130), zipped: bool = False
) -> dict:
    """Write `folder/jpg` and `folder/reports` (or `folder/mimic-cxr-reports.zip`).

    Returns:
        The expected result: rows, dropped (by reason), images and patients (by split).
    """
    rng = random.Random(7)
    rows, splits, reports = [], [], {}
    dropped, images, kept_patients = Counter(), Counter(), {}
    fault_names, report_names = list(FAULTS), [n for n in REPORTS if n != "no sections"]
    number = 0
    for index in range(patients):
        patient = str(10_000_000 + 49_979 * index + 17)
        split = "validate" if index % 10 == 3 else "test" if index % 10 == 8 else "train"
        torn = index % 40 == 9  # a patient that the official file puts into two splits
        for visit in range(1 + torn + index % 3):
            number += 1
            study = str(50_000_000 + 7_919 * number)
            # Every second study has a fault, cycling through the kinds.
            fault = fault_names[number // 2 % len(FAULTS)] if number % 2 == 0 else None
            kind = "no sections" if fault == "no sections" else report_names[number % 10]
            place = f"files/p{patient[:2]}/p{patient}/s{study}"
            if fault != "no report":
                text = REPORTS[kind].format(mm=number) + (_FOOT if kind == "usual" else "")
                reports[f"{place}.txt"] = _report(text, fault)
            views = ["LATERAL"] if number % 4 < 2 else []
            views += ["PA", "PA"] if fault is None and number % 5 == 0 else ["PA"]
            for order, view in enumerate(views):
                dicom = "-".join(f"{rng.getrandbits(32):08x}" for _ in range(5))
                wrong = fault if view == "PA" else None
                shown = {"AP": "AP", "no view": "", "lower case view": "pa"}.get(wrong, view)
                row = [dicom, patient, study, "CHEST (PA AND LAT)", shown, *shape]
                row += ["21800506", "213014.531", "CHEST (PA AND LAT)", "", "Erect"]
                rows += [row, row] if wrong == "listed twice" else [row]
                if wrong != "not in split":
                    own = "test" if torn and visit == 0 else split
                    splits.append([dicom, study, patient, own])
                pixels = film_pixels(number, (40, 50) if wrong == "tiny" else shape, order)
                _write_jpg(folder / "jpg" / place / f"{dicom}.jpg", pixels, wrong)

                reason = "not a PA view" if view != "PA" else FAULTS.get(wrong)
                # Of an image listed twice, the first row is kept.
                reasons = [None, reason] if reason == "image listed twice" else [reason]
                if torn:
                    reasons = [r if r in FOUND_FIRST else "patient in two splits" for r in reasons]
                for reason in reasons:
                    if reason is not None:
                        dropped[reason] += 1
                        continue
                    images[SPLITS[split]] += 1
                    kept_patients.setdefault(SPLITS[split], set()).add(patient)
    rng.shuffle(rows)
    _write_table(folder / "jpg" / "mimic-cxr-2.0.0-metadata.csv.gz", METADATA, rows)
    header = ("dicom_id", "study_id", "subject_id", "split")
    _write_table(folder / "jpg" / "mimic-cxr-2.0.0-split.csv.gz", header, splits)
    _write_reports(folder, reports, zipped)
    return {
        "rows": len(rows),
        "dropped": dict(dropped),
        "images": dict(images),
        "patients": {name: len(found) for name, found in kept_patients.items()},
    }


def _report(text: str, fault: str | None) -> bytes:
    if fault == "empty report":
        return b""
    if fault == "latin-1":
        return text.replace("odule", "odule (chest wall 37 \N{DEGREE SIGN}C)").encode("latin-1")
    if fault == "windows lines":
        text = text.replace("\n", "\r\n")
    return text.encode()


def _write_jpg(path: Path, pixels: np.ndarray, fault: str | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if fault == "missing jpg":
        return
    if fault == "constant":
        pixels[:] = 128
    image = Image.fromarray(pixels)
    if fault == "colour":
        image = Image.merge("RGB", (image, image.rotate(180), image))
    if fault == "gray RGB":
        image = image.convert("RGB")
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=95)
    content = stream.getvalue()
    if fault == "truncated jpg":
        content = content[: len(content) // 2]
    if fault == "empty jpg":
        content = b""
    if fault == "web page":
        content = b"<!DOCTYPE html><html><body>401 Unauthorized</body></html>"
    path.write_bytes(content)


def _write_table(path: Path, header: tuple[str, ...], rows: list[list]) -> None:
    with gzip.open(path, "wt", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def _write_reports(folder: Path, reports: dict[str, bytes], zipped: bool) -> None:
    if zipped:
        with zipfile.ZipFile(folder / "mimic-cxr-reports.zip", "w") as archive:
            for name, content in reports.items():
                archive.writestr(name, content)
        return
    for name, content in reports.items():
        path = folder / "reports" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    expected = write_tree(
        Path(sys.argv[1]),
        patients=int(sys.argv[2]) if len(sys.argv) > 2 else 200,
        shape=(680, 560),
        zipped=True,
    )
    print(json.dumps(expected, indent=2))
