"""The report: one well-formed file that loads nothing, shows everything and runs nothing."""

import base64
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffct.eval.figures import Number, Table
from diffct.eval.report_page import PURPOSE, SYNTHETIC, write_report
from diffct.eval.section import (
    PRIVACY,
    QUALITY,
    TRUTH,
    VARIETY,
    Picture,
    Section,
    Verdict,
    anonymise,
    not_measured,
)
from diffct.metrics.intervals import Estimate

HOSTILE = '<script>alert("x")</script>'
DIGEST = "0123456789abcdef" * 4
VOID = {"meta", "link", "img", "br", "hr"}


class Page(HTMLParser):
    """Check that tags close in order; keep attributes, and the text of each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def texts_in(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


def make_sections(folder: Path) -> list[Section]:
    picture = folder / "pairs.png"
    shades = np.random.default_rng(0).integers(0, 255, (8, 20), dtype=np.uint8)
    Image.fromarray(shades).save(picture)
    distances = Table(
        "Distances",
        ("", "samples", "training"),
        [
            ("FD[net]", Number(Estimate(12.5, 1.0, (10.5, 14.5))), Number(3.25)),
            (f"KID[{HOSTILE}]", Number(None), Number(0.25)),
        ],
        note=f"A note {HOSTILE}.",
    )
    card = {
        "sets": {"samples": {"images": 4, "patients": None, "files_sha256": DIGEST}},
        "phantoms": True,
        "settings": {"false_alarms": 0.001, "zooms": [0.5, 2.0], "membership": {}},
        "networks": [{"name": HOSTILE}, {"name": "net"}],
    }
    random = Table("Random", ("", "samples"), [("FD[random]", Number(1))], aside=True)
    scores = Table("Scores", ("compared by", "suspicious"), [("pixels", Number(0, out_of=4))])
    return [
        Section(
            "distribution",
            "Samples as a set",
            card,
            (),
            [distances, random],
            remarks=["Few images."],
            verdicts=[
                Verdict(QUALITY, "in doubt", "KID 0.2, yardstick 0.1."),
                Verdict(VARIETY, "good", f"As varied {HOSTILE}."),
            ],
            missing=[f"LPIPS: no weights {HOSTILE}."],
        ),
        Section(
            "privacy",
            f"Privacy {HOSTILE}",
            card,
            (),
            [scores],
            [Picture(picture, f"Pairs {HOSTILE}")],
            [f"**Copies found: {HOSTILE}**", "AUC 0.5."],
            verdicts=[Verdict(PRIVACY, "bad", "3 of 4 samples are near-copies.")],
        ),
        not_measured("fidelity", "Translation", "No truth is known.", questions=[TRUTH]),
    ]


def write(folder: Path, *, synthetic: bool = True) -> str:
    path = folder / "out" / "report.html"
    summary = {"pipeline": "pelvis", "data": f"phantoms {HOSTILE}", "seed": "0"}
    title = f"Evaluation {HOSTILE}"
    write_report(
        make_sections(folder),
        path,
        title=title,
        summary=summary,
        synthetic=synthetic,
        origin={"Command": f"diffct evaluate '/my scans (1)' {HOSTILE}"},
    )
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_report_is_well_formed_and_shows_every_part(tmp_path):
    page = Page(write(tmp_path))
    assert page.texts_in("title") == page.texts_in("h1") == [f"Evaluation {HOSTILE}"]
    titles = ["Pictures", "Samples as a set", f"Privacy {HOSTILE}", "Translation"]
    assert page.texts_in("h2") == [*titles, "Random networks"]
    assert page.texts_in("h3") == ["Distances", "Scores", "Random"]
    ids = {attributes["id"] for attributes in page.attributes("section")}
    links = page.attributes("a")
    assert {link["href"] for link in links} == {f"#{name}" for name in ids - {"random"}}
    assert set(titles) <= set(page.texts_in("a"))
    assert {"pelvis", f"phantoms {HOSTILE}"} <= set(page.texts_in("td"))
    assert f"A note {HOSTILE}." in page.texts_in("p")
    assert page.texts_in("strong") == [f"Copies found: {HOSTILE}"]
    assert page.texts_in("figcaption") == [f"Pairs {HOSTILE}"]


def test_answers_come_first_then_pictures_then_tables_then_what_readers_may_skip(tmp_path):
    text = write(tmp_path)
    order = ["As good as real?", 'id="pictures"', "<img", "Few images.", "FD[net]", "FD[random]"]
    places = [text.index(words) for words in [*order, "How this report was made"]]
    assert places == sorted(places)
    folded = text[text.index('id="random"') :]
    assert folded.index("<details>") < folded.index("FD[random]") < folded.index("</details>")


def test_each_question_is_answered_by_a_word_a_shape_and_a_sentence(tmp_path):
    page = Page(write(tmp_path))
    assert page.texts_in("b") == ["not measured", "in doubt", "good", "bad"]
    questions = [TRUTH, QUALITY, VARIETY, PRIVACY]
    assert [text for text in page.texts_in("a") if text in questions] == questions
    shapes = [attributes["d"] for attributes in page.attributes("path")]
    assert len(page.attributes("svg")) == 4 and len(set(shapes)) > 4
    assert {"KID 0.2, yardstick 0.1.", "No truth is known."} <= set(page.texts_in("p"))


def test_a_question_that_no_section_answers_is_not_measured(tmp_path):
    write_report([], tmp_path / "none.html", title="t", summary={}, synthetic=False)
    page = Page((tmp_path / "none.html").read_text(encoding="utf-8"))
    assert page.texts_in("b") == ["not measured"] * 3


def test_alarms_look_like_alarms_and_what_is_missing_says_why(tmp_path):
    text = write(tmp_path)
    assert text.count('class="remark alarm"') == 1
    assert '<p class="remark alarm" role="note"><strong>Copies found' in text
    assert '<li class="answer bad">' in text
    page = Page(text)
    assert "No truth is known." in page.texts_in("li")
    assert f"LPIPS: no weights {HOSTILE}." in page.texts_in("li")


def test_command_is_in_the_report_with_a_warning_about_its_paths(tmp_path):
    page = Page(write(tmp_path))
    assert f"diffct evaluate '/my scans (1)' {HOSTILE}" in page.texts_in("dd")
    assert any("folders of the machine" in text for text in page.texts_in("p"))


def test_report_loads_nothing_from_elsewhere(tmp_path):
    text = write(tmp_path)
    assert "http:" not in text and "https:" not in text
    assert "url(" not in text and "@import" not in text
    for tag, attributes in Page(text).tags:
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith(("data:", "#"))
        assert tag not in ("script", "iframe", "object", "embed")


def test_hostile_text_stays_text(tmp_path):
    text = write(tmp_path)
    assert "<script" not in text
    assert not [
        name for _, attributes in Page(text).tags for name in attributes if name[:2] == "on"
    ]


def test_picture_is_in_the_file_byte_by_byte(tmp_path):
    page = Page(write(tmp_path))
    (image,) = page.attributes("img")
    kind, _, data = image["src"].partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data, validate=True) == (tmp_path / "pairs.png").read_bytes()


def test_banner_is_there_for_phantoms_only_and_the_purpose_always(tmp_path):
    phantoms = write(tmp_path)
    patients = write(tmp_path, synthetic=False)
    assert SYNTHETIC in phantoms and SYNTHETIC not in patients
    for text in (phantoms, patients):
        assert PURPOSE in Page(text).texts_in("p")


def test_wide_tables_have_intervals_below_their_numbers(tmp_path):
    psnr = Estimate(26.5, 0.2, (26.1, 26.9), sd=2.1)
    row = ("PSNR", *[Number(psnr, deviation=True)] * 3)
    table = Table("Wide", ("", "one", "two", "three"), [row])
    section = Section("wide", "Wide", protocol={}, figures=(), tables=[table])
    write_report([section], tmp_path / "wide.html", title="", summary={}, synthetic=True)
    page = Page((tmp_path / "wide.html").read_text(encoding="utf-8"))
    assert page.texts_in("td") == ["26.5 ± 2.1"] * 3
    assert page.texts_in("span") == ["[26.1, 26.9]"] * 3


def test_numbers_are_aligned_with_their_intervals_beside_them(tmp_path):
    text = write(tmp_path)
    assert '<td class="number">12.5</td><td class="number interval">[10.5, 14.5]</td>' in text
    assert '<td class="number">–</td><td class="number interval"></td>' in text
    assert '<th scope="col" class="number" colspan="2">samples</th>' in text
    assert '<th scope="col" class="number">training</th>' in text
    assert '<th scope="row">FD[net]</th>' in text
    assert '<th scope="col">compared by</th>' in text


def test_protocol_is_readable_and_its_hashes_are_short(tmp_path):
    text = write(tmp_path)
    page = Page(text)
    assert page.texts_in("abbr") == [DIGEST[:12] + "…"] * 2
    assert all(abbr["title"] == DIGEST for abbr in page.attributes("abbr"))
    for name, value in (
        ("patients", "–"),
        ("phantoms", "yes"),
        ("false alarms", "0.001"),
        ("zooms", "0.5, 2"),
        ("membership", "none"),
    ):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in text
    assert not {"{", "["} & set("".join(page.texts_in("dd")))


def test_a_file_that_is_no_picture_is_refused_and_nothing_is_written(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    picture = Picture(tmp_path / "notes.txt", "")
    section = Section("a", "A", {}, (), pictures=[picture])
    options = {"title": "t", "summary": {}, "synthetic": False}
    with pytest.raises(ValueError, match=r"notes\.txt is no picture"):
        write_report([section], tmp_path / "report.html", **options)
    assert not (tmp_path / "report.html").exists()


def test_sentences_name_no_file_of_a_patient():
    reason = "/data/Ann Smith [1].nii.gz: 3 slices; see Ann Smith [1].nii.gz."
    section = not_measured("privacy", "Privacy", reason, questions=[PRIVACY])
    names = {"Ann Smith [1].nii.gz": "image 1", "/data/Ann Smith [1].nii.gz": "image 1"}
    shared = anonymise(section, names)
    assert list(shared.missing) == ["image 1: 3 slices; see image 1."]
    assert shared.verdicts[0].sentence == shared.missing[0]
    assert "Ann" not in shared.markdown() and section.missing == [reason]


def test_the_end_of_another_files_name_is_not_replaced():
    section = not_measured("a", "A", "s0.png; set/0.png (0.png)", questions=[PRIVACY])
    shared = anonymise(section, {"0.png": "image 1"})
    assert list(shared.missing) == ["s0.png; set/image 1 (image 1)"]
    assert list(anonymise(section, {}).missing) == section.missing


def test_tables_name_no_file_of_a_patient():
    table = Table("Nearest", ("sample", "score"), [("smith.png", "0.1"), ("new.png", "0.2")])
    section = Section("privacy", "Privacy", {}, (), tables=[table])
    cleaned = anonymise(section, {"smith.png": "image 1 of the training images"})
    assert cleaned.tables[0].rows == [
        ["image 1 of the training images", "0.1"],
        ["new.png", "0.2"],
    ]
