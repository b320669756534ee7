"""Findings and Impression are found and cut into sentences in every style of typing."""

import importlib.util
import re
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from diffct.prepare.radiology_reports import report_sections, report_sentences, split_sentences

MIMIC = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old woman with ?pleural effusion  // ?pleural effusion

 COMPARISON:  Chest radiograph ___

 FINDINGS:

 Cardiac size cannot be evaluated.  Large left pleural effusion is new.  Small
 right effusion is new.  Right PICC line tip is 2.5 cm. below the
 cavoatrial junction.

 IMPRESSION:

 1.  Large left and small right pleural effusions, approx. 1/3 of the left
 hemithorax.
 2.  Dr. ___ was paged at 3:15 p.m. on ___.

 RECOMMENDATION(S):  Followup in 4 weeks.
"""


def test_a_usual_report_gives_its_sentences():
    assert report_sentences(MIMIC) == [
        "Cardiac size cannot be evaluated.",
        "Large left pleural effusion is new.",
        "Small right effusion is new.",
        "Right PICC line tip is 2.5 cm. below the cavoatrial junction.",
        "Large left and small right pleural effusions, approx. 1/3 of the left hemithorax.",
        "Dr. ___ was paged at 3:15 p.m. on ___.",
    ]


def test_line_ends_and_lost_line_breaks_do_not_matter():
    expected = report_sentences(MIMIC)
    assert report_sentences(MIMIC.replace("\n", "\r\n")) == expected
    assert report_sentences(" ".join(MIMIC.split())) == expected


@pytest.mark.parametrize(
    ("text", "findings", "impression"),
    [
        ("FINDINGS:  Clear.\n IMPRESSION:  Normal.", "Clear.", "Normal."),
        ("FINDINGS:\n\n IMPRESSION: Normal.", None, "Normal."),
        ("FINDINGS: ___.\n IMPRESSION: ___", None, None),
        ("Findings: Clear.\nImpression: Normal.", "Clear.", "Normal."),
        ("findings: clear.\nimpression: normal.", "clear.", "normal."),
        ("FINDINGS\nClear.\n\nIMPRESSION\nNormal.", "Clear.", "Normal."),
        ("FINDINGS - Clear.\nIMPRESSION - Normal.", "Clear.", "Normal."),
        ("FINDINGS: Clear IMPRESSION: Normal", "Clear", "Normal"),
        ("FINDINGS AND IMPRESSION: Clear.", "Clear.", None),
        ("FINDINGS/IMPRESSION: Clear.", "Clear.", None),
        ("CHEST, PA AND LATERAL FINDINGS: Clear.", "Clear.", None),
        ("CONCLUSION: Normal.", None, "Normal."),
        ("IMPRESSION AND RECOMMENDATION(S): Normal.", None, "Normal."),
        ("IMPRESSON: Normal.", None, "Normal."),
        ("FINDNGS: Clear.", "Clear.", None),
        ("FINDINGS: Clear.\nLUNGS: Aerated.", "Clear.\nLUNGS: Aerated.", None),
        ("IMPRESSION: Normal.\nNOTIFICATION: Paged.\nADDENDUM: None.", None, "Normal."),
        ("FINDINGS: Clear. Comparison: None. Technique: AP.", "Clear.", None),
        ("FINDINGS: Clear in comparison: see study.", "Clear in comparison: see study.", None),
        ("WET READ: ___ 3 PM\n Mass.\n FINAL REPORT\n IMPRESSION: Normal.", None, "Normal."),
        ("PROVISIONAL FINDINGS IMPRESSION (PFI): Mass.\nIMPRESSION: Normal.", None, "Normal."),
        ("FINDINGS: A.\nFINAL ADDENDUM\nLate.\nFINDINGS: B.", "A.\n\nB.", None),
        ("CLINICAL INFORMATION: Cough.\nChest is clear.", None, None),
        ("", None, None),
    ],
)
def test_headings_are_found(text, findings, impression):
    expected = {"findings": findings, "impression": impression}
    assert report_sections(text) == {key: told for key, told in expected.items() if told}


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Clear. No effusion.", 2),
        ("clear. no effusion. heart normal", 3),
        ("Clear.No effusion.", 2),
        ("Seen by Dr. Smith vs. St. Jude's.", 1),
        ("Opacity, e.g. pneumonia, i.e. Legionella.", 1),
        ("A 5 mm. nodule. A 6 mm. Nodule.", 3),
        ("No. 3 rib is broken.", 1),
        ("Effusion? No. Heart is large.", 3),
        ("L. lower lobe opacity at T8. There is none at 1.5 cm.", 2),
        ("Nodule (seen before.) Now larger.", 2),
        ("Compared to ___. There is no change. ___ tube is gone.", 3),
        ("1. Mass.\n2) Effusion\n (3) Gas", 3),
        ("1. Mass. 2. Effusion. 3. Gas.", 3),
        ("1.Mass. 2.Effusion.", 2),
        ("- Mass\n- Effusion\n* Gas", 3),
        ("Collapse of T\n 12. There is none.", 2),
        ("Stable since 2010. 4. lead is new.", 1),
        ("Clear\n\nHeart is large", 2),
        ("Clear\nlungs", 1),
        ("___\n\n1.\n\n...", 0),
        ("Two\x00words\x0c. Two more", 2),
    ],
)
def test_sentences_are_counted_as_a_reader_would(text, sentences):
    assert len(split_sentences(text)) == sentences, split_sentences(text)


def test_list_markers_are_removed_and_the_text_is_kept():
    text = " 1.  Small\n left effusion\n 2. ___ catheter\n - Gas"
    assert split_sentences(text) == ["Small left effusion", "___ catheter", "Gas"]
    words = re.findall(r"\w+", MIMIC.partition("FINDINGS:")[2].partition("RECOMM")[0])
    kept = re.findall(r"\w+", " ".join(report_sentences(MIMIC)))
    assert kept == [word for word in words if word not in ("IMPRESSION", "1", "2")][:3] + kept[3:]


def test_a_repeated_sentence_is_returned_once():
    assert report_sentences("FINDINGS: Clear.\nIMPRESSION: Clear.") == ["Clear."]


def test_3955_real_reports_keep_their_sections_and_give_sane_sentences():
    spec = importlib.util.find_spec("torchxrayvision")
    archive = (
        Path(spec.submodule_search_locations[0]) / "data" / "NLMCXR_reports.tgz" if spec else None
    )
    if archive is None or not archive.exists():
        pytest.skip("needs the reports inside torchxrayvision")
    lengths, other_sections, without, reports = [], 0, 0, 0
    with tarfile.open(archive) as files:
        for member in files:
            if not member.name.endswith(".xml"):
                continue
            texts = ElementTree.parse(files.extractfile(member)).iter("AbstractText")
            told = {text.get("Label"): (text.text or "").strip() for text in texts}
            report = "\n\n".join(f" {label}:  {text}" for label, text in told.items())
            found = report_sections(report)
            wanted = {name.lower(): told[name] for name in ("FINDINGS", "IMPRESSION")}
            wanted = {name: text for name, text in wanted.items() if re.search("[A-Za-z]", text)}
            other_sections += found != wanted
            sentences = report_sentences(report)
            without += not sentences
            lengths += [len(sentence.split()) for sentence in sentences]
            reports += 1
    assert reports == 3955
    # One report contains another one in its impression; 28 have neither section.
    assert other_sections == 1 and without == 28
    assert 22_000 < len(lengths) < 23_500
    assert 6 < sum(lengths) / len(lengths) < 7 and max(lengths) < 60
