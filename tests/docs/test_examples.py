"""The examples of the public names and of the pages run."""

import doctest
import re
from pathlib import Path

import pytest

import diffct
from diffct.privacy import audit
from tests.docs import workplace

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What has no example: the version, and a name that diffusers' loader looks up.
WITHOUT = {"__version__", "ModelMixin"}

STAND_INS = {
    "outputs/my-scans": "outputs/ct3d/diffusion",
    'pipeline.push_to_hub("user/name")': 'pipeline.save_pretrained("card")',
}
"""What is replaced before a page's Python runs: there is no Hub, and no scan of the reader."""


@pytest.fixture(scope="session")
def filled(tmp_path_factory, make_cxr_pipeline) -> Path:
    """Return a folder with the outputs that examples load."""
    place = tmp_path_factory.mktemp("reader")
    workplace.fill(place, make_cxr_pipeline)
    return place


@pytest.fixture
def place(filled, monkeypatch) -> Path:
    """Return that folder, as the working directory."""
    monkeypatch.chdir(filled)
    return filled


@pytest.mark.parametrize("name", sorted(set(diffct.__all__) - WITHOUT))
def test_the_example_of_a_public_name_runs(place, name):
    run_example(getattr(diffct, name), name)


def test_the_example_of_the_privacy_audit_runs():
    run_example(audit, "audit")


def run_example(documented: object, name: str) -> None:
    """Run the example in a docstring."""
    text = documented.__doc__
    # "Examples", for the pages show a section "Example" as running text.
    assert text and "Examples:\n" in text and ">>>" in text, f"{name} has no examples."
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=flags).run(example, out=report.append)
    assert result.failed == 0, "".join(report)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_python_of_a_page_runs(place, page):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        for original, local in STAND_INS.items():
            block = block.replace(original, local)
        exec(compile(block, str(page), "exec"), names)
