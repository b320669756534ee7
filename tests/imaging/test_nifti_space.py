"""The position in a NIfTI header, stated once, twice or contradictorily."""

import struct

import nibabel
import numpy as np
import pytest

from diffct.imaging.volume import read_stored, read_volume, upright, write_volume

SPACING = np.diag([1.5, 1.5, 3, 1])
LPS = np.diag([-1.5, -1.5, 3, 1])


def turned(affine: np.ndarray, degrees: float, *, shift=(0, 0, 0)) -> np.ndarray:
    """Turn an affine about the second axis and shift it."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.eye(4)
    turn[[0, 0, 2, 2], [0, 2, 0, 2]] = c, s, -s, c
    turn[:3, 3] = shift
    return turn @ affine


def write(path, *, sform=None, qform=None, pixdim=None, unit="mm"):
    """Write a scan; sform and qform are (affine, code)."""
    body = np.full((16, 14, 12), -1000, np.int16)
    body[4:12, 4:10] = 40
    image = nibabel.Nifti1Image(body, None)
    image.header.set_xyzt_units(unit)
    for set_form, form in ((image.set_qform, qform), (image.set_sform, sform)):
        if form is not None:
            set_form(*form)
    nibabel.save(image, path)
    if pixdim is not None:
        raw = bytearray(path.read_bytes())
        raw[80:92] = struct.pack("<3f", *pixdim)
        path.write_bytes(raw)
    return path


CONTRADICTIONS = {
    "mirrored": (
        {"sform": (LPS, 1), "qform": (SPACING * [1, -1, 1, 1], 1)},
        r"the sform \(code 1\) says LPS.* the qform \(code 1\) RPS, .* mirror",
    ),
    "mirrored in MNI": ({"sform": (SPACING, 4), "qform": (LPS * [1, -1, 1, 1], 1)}, "mirror"),
    "the other way round": (
        {"sform": (SPACING, 1), "qform": (LPS, 1)},
        r"turned by 180\.0 degrees",
    ),
    "the other way in MNI": ({"sform": (SPACING, 4), "qform": (LPS, 1)}, "the other way"),
    "turned": ({"sform": (turned(LPS, 2), 1), "qform": (LPS, 1)}, r"turned by 2\.0 degrees"),
    "shifted": (
        {"sform": (turned(LPS, 0, shift=(0, 5, 0)), 2), "qform": (LPS, 2)},
        r"the middle 5\.0 units apart",
    ),
    "scaled": (
        {"sform": (LPS @ np.diag([1.1, 1, 1, 1]), 1), "qform": (LPS, 1)},
        r"spacing 1\.65 x 1\.5 x 3 .*, but pixdim spacing 1\.5 x 1\.5 x 3",
    ),
    "aligned and scaled": ({"sform": (LPS * 1.1, 2), "qform": (LPS, 1)}, "but pixdim"),
    "doubled in MNI": ({"sform": (LPS * 2, 4), "qform": (LPS, 1)}, "but pixdim"),
    "sform and pixdim": ({"sform": (LPS, 1), "pixdim": (1, 1, 1)}, "but pixdim spacing 1 x 1 x 1"),
    "qform without spacing": ({"qform": (LPS, 1), "pixdim": (0, 0, 0)}, "holds no spacing"),
    "half a spacing": ({"qform": (LPS, 1), "pixdim": (1.5, 0, 3)}, "holds no spacing"),
}


@pytest.mark.parametrize("fault", CONTRADICTIONS)
def test_headers_that_contradict_themselves_are_refused(tmp_path, fault):
    forms, reason = CONTRADICTIONS[fault]
    path = write(tmp_path / "scan.nii", **forms)
    with pytest.raises(ValueError, match=reason) as caught:
        read_volume(path)
    assert str(caught.value).startswith(f"{path}: its ")


AGREEMENTS = {
    "one code": {"sform": (LPS, 1), "qform": (SPACING, 0)},
    "the other code": {"sform": (SPACING, 0), "qform": (LPS, 1)},
    "rounded": {"sform": (turned(LPS, 0.05, shift=(0.05, 0, 0)), 1), "qform": (LPS, 1)},
    "rounded spacing": {"sform": (LPS * [1.004, 1, 1, 1], 1), "qform": (LPS, 1)},
    "sform without pixdim": {"sform": (LPS, 1), "pixdim": (0, 0, 0)},
    "registered to a template": {
        "sform": (turned(LPS, 12, shift=(3, 40, -7)) @ np.diag([1.15, 1.1, 1.2, 1]), 4),
        "qform": (LPS, 1),
    },
    "aligned with another scan": {
        "sform": (turned(LPS, 9, shift=(3, 40, 0)), 2),
        "qform": (LPS, 1),
    },
    "oblique": {"sform": (turned(LPS, 30), 1), "qform": (turned(LPS, 30), 1)},
    "micrometres": {"sform": (LPS * 1000, 1), "qform": (LPS * 1000, 1), "unit": "micron"},
}


@pytest.mark.parametrize("name", AGREEMENTS)
def test_headers_that_say_one_thing_twice_are_read(tmp_path, name):
    forms = AGREEMENTS[name]
    volume = read_stored(write(tmp_path / "scan.nii", **forms))
    key = "sform" if forms.get("sform", (0, 0))[1] else "qform"
    unit = 0.001 if "unit" in forms else 1
    expected = forms[key][0] * np.array([[unit]] * 3 + [[1]])
    np.testing.assert_allclose(volume.affine[:3], expected[:3], atol=1e-5)


@pytest.mark.parametrize(("sform_code", "qform_code"), [(4, 1), (2, 2), (4, 0), (0, 1), (3, 4)])
def test_the_codes_and_both_worlds_survive_turning_and_writing(tmp_path, sform_code, qform_code):
    other = turned(LPS, 12, shift=(3, 40, -7)) if sform_code != qform_code else LPS
    forms = {"sform": (other, sform_code), "qform": (LPS, qform_code)}
    path = write(tmp_path / "scan.nii", **forms)
    write_volume(upright(read_stored(path)), tmp_path / "again.nii")
    before, after = nibabel.load(path), nibabel.load(tmp_path / "again.nii")
    assert int(after.header["sform_code"]) == sform_code
    assert int(after.header["qform_code"]) == qform_code
    # The same voxel lies where it lay, in either world.
    spot_before = np.append(np.argwhere(np.asarray(before.dataobj) == 40)[0], 1)
    turn = np.linalg.inv(after.affine) @ before.affine
    for form in ("get_sform", "get_qform"):
        old, new = (getattr(image, form)(coded=True)[0] for image in (before, after))
        assert (old is None) == (new is None)
        if old is not None:
            np.testing.assert_allclose(new @ turn @ spot_before, old @ spot_before, atol=2e-3)


@pytest.mark.parametrize("code", [0, 1])
def test_a_quaternion_that_is_not_a_rotation_is_named_if_it_is_used(tmp_path, code):
    path = write(tmp_path / "scan.nii", sform=(LPS, 1), qform=(LPS, code))
    raw = bytearray(path.read_bytes())
    raw[256:268] = struct.pack("<3f", 1, 1, 1)
    path.write_bytes(raw)
    if code == 0:
        assert read_volume(path).spacing_mm == (3, 1.5, 1.5)
        return
    with pytest.raises(ValueError, match=r"scan\.nii: cannot be read"):
        read_volume(path)


# Bytes 256 to 268 hold the quaternion, 268 to 280 the qform's offset, 280 the sform's first row.
@pytest.mark.parametrize(("start", "name"), [(256, "qform"), (268, "qform"), (280, "sform")])
def test_forms_that_are_not_numbers_are_named_with_their_file(tmp_path, start, name):
    path = write(tmp_path / "scan.nii", sform=(LPS, 4), qform=(LPS, 1))
    raw = bytearray(path.read_bytes())
    raw[start : start + 12] = struct.pack("<3f", *[np.nan] * 3)
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=rf"scan\.nii: its {name} holds NaN"):
        read_volume(path)
