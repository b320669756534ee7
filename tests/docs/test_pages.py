"""The README and the pages beside it: short, whole, and of one version."""

import configparser
import re
from pathlib import Path

import pytest
import yaml

import diffct
from docs import write_configuration

ROOT = Path(__file__).parents[2]
README_LINES = 150


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_between_files_lead_somewhere(name):
    """Links inside docs/ are checked by `make docs`."""
    links = re.findall(r"\]\((?!https?://)([^)#]+)(?:#([^)]+))?\)", (ROOT / name).read_text())
    assert links
    for path, anchor in links:
        assert (ROOT / path).exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in headings]


def test_every_page_is_in_the_navigation():
    # The site's configuration may name Python objects, which a plain reader refuses.
    text = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f": {page.name}\n" in text, f"mkdocs.yml does not name {page.name}."


def test_the_page_of_settings_is_what_the_classes_say():
    page = write_configuration.PAGE.read_text(encoding="utf-8")
    assert page == write_configuration.make_page(), "Run python docs/write_configuration.py."


def test_citation_and_changelog_name_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == diffct.__version__
    assert citation["cff-version"] == "1.2.0" and len(citation["references"]) == 3
    assert f"## [{diffct.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_hooks_and_checks_run_the_same_ruff():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    (pinned,) = re.findall(r"^ruff==\S+$", setup["options.extras_require"]["dev"], re.MULTILINE)
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    named = [hook["additional_dependencies"] for hook in hooks if hook["id"].startswith("ruff")]
    assert named == [[pinned], [pinned]]


def test_the_workflow_runs_what_ci_runs():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow["jobs"]["ci"]["steps"][-1] == {"run": ".ci/run"}
    for target in re.findall(r"^make (\w+)", (ROOT / ".ci/run").read_text(), re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
