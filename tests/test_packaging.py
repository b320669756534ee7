"""The wheel contains all of diffct, and no generic top-level package."""

import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"pipelines": "diffct.pipelines", "train": "diffct.train", "eval": "diffct.eval"}


def packages_on_disk() -> set[str]:
    found = set()
    for folder, name in {"diffct": "diffct", **FOLDERS}.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inner = init.parent.relative_to(ROOT / folder).parts
            found.add(".".join((name, *inner)))
    return found


def test_the_package_list_names_every_package_on_the_disk():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    assert listed == packages_on_disk()


def test_no_python_file_lies_in_a_folder_that_is_not_a_package():
    for folder in ("diffct", *FOLDERS):
        for path in (ROOT / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), f"{path} would be left out of the wheel"


@pytest.mark.slow
def test_the_installed_wheel_imports_and_knows_its_command(tmp_path):
    def run(*words: str, **options: object) -> str:
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"),
        *("--wheel-dir", str(tmp_path), str(ROOT)),
    )
    (wheel,) = tmp_path.glob("diffct-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "diffct",
        "-".join(wheel.name.split("-")[:2]) + ".dist-info",
    }
    assert "diffct/train/configs/ct3d/diffusion-published.yaml" in names
    assert "diffct/py.typed" in names
    assert {"diffct/eval/report.html.jinja", "diffct/eval/report.css"} <= set(names)

    site = tmp_path / "site"
    run(*(sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", str(site)), wheel)
    # -P and another folder: the checkout must not be found instead.
    code = (
        "import diffct, diffct.train.train_ct3d as script, diffct.cli;"
        f"assert diffct.__file__.startswith({str(site)!r}), diffct.__file__;"
        "print((script.CONFIGS / 'ct3d/diffusion.yaml').exists(), diffct.__version__)"
    )
    paths = f"import sys; sys.path.insert(0, {str(site)!r});"
    output = run(sys.executable, "-P", "-c", paths + code, cwd=tmp_path)
    assert output.split()[0] == "True"
