"""`diffct inspect`: a report on the images of a file, folder or manifest, and their problems."""

import argparse
import json
import sys
from typing import TYPE_CHECKING

from diffct.arguments import path_argument

if TYPE_CHECKING:
    from diffct.inspection.images import Modality

_MODALITIES: "dict[str, Modality]" = {"ct": "CT", "mr": "MR", "film": "film"}


def add_inspect(commands: "argparse._SubParsersAction") -> None:
    """Describe `diffct inspect`."""
    parser = commands.add_parser(
        "inspect",
        help="show what would be read: size, spacing, values, problems, files left out",
        description="Read every image of a folder or of a manifest, and report its problems. Ends"
        " with exit status 1 if an image cannot be used.",
    )
    parser.add_argument(
        "path",
        type=path_argument,
        help="a folder of scans or films, one image file, or a manifest.jsonl",
    )
    parser.add_argument(
        "--kind",
        choices=list(_MODALITIES),
        help="what the images are. By default pictures are films, DICOM states its modality, and"
        " the other volumes are judged as MR if none of them can be CT in HU",
    )
    for option, words in (("--include", "are the only ones read"), ("--exclude", "are not read")):
        parser.add_argument(
            option,
            nargs="+",
            default=[],
            metavar="PATTERN",
            help=f'paths that {words}, e.g. "ct.nii.gz" or "*/segmentations"; quote patterns',
        )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> None:
    """Print a report and exit with 1 if any image has a problem."""
    from diffct.data.manifest import MANIFEST_NAME
    from diffct.inspection.overview import format_reports, inspect_manifest, inspect_scans

    path = options.path
    is_manifest = path.suffix == ".jsonl" or (path / MANIFEST_NAME).is_file()
    for name in ("include", "exclude", *(["kind"] if is_manifest else [])):
        if getattr(options, name) and (is_manifest or path.is_file()):
            what = "a manifest, which names its images itself" if is_manifest else "a single file"
            raise ValueError(f"{path}: --{name} has no meaning for {what}.")
    if is_manifest:
        inspection = inspect_manifest(path, show_progress=True)
    else:
        inspection = inspect_scans(
            path,
            modality=_MODALITIES.get(options.kind),
            include=options.include,
            exclude=options.exclude,
            show_progress=True,
        )
    if options.json:
        print(json.dumps(inspection.as_json(), indent=2))  # ASCII, also for other file names
    else:
        print(format_reports(inspection))
    if inspection.unusable:
        sys.exit(1)
