"""Films keep their gray values, sides and direction in files of every format."""

import importlib.util
import pickle
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from diffct.imaging.dicom_film import UnusableFilmError, header_remarks, read_pixel_spacing_mm
from diffct.imaging.radiograph import read_notes, read_radiograph, resize_shorter_side, write_png


def ramp(height: int = 80, width: int = 100) -> np.ndarray:
    """A film without any symmetry, in [0, 1]: dark at the top left, bright at the bottom right."""
    rows, columns = np.mgrid[0:height, 0:width]
    film = (rows / height * 0.6 + columns / width * 0.4).astype(np.float32)
    film[5:20, 5:15] = 1  # a marker beside the patient's right shoulder
    return film


def write_dicom(path: Path, stored: np.ndarray, *, bits: int = 12, **tags: object) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = pydicom.dataset.FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, int(stored.dtype.kind == "i")
    defaults = {"Modality": "DX", "PhotometricInterpretation": "MONOCHROME2"}
    for name, value in (defaults | tags).items():
        setattr(dataset, name, value)
    dataset.PixelData = stored.tobytes()
    dataset.save_as(path)
    return path


def stored_12_bit(film: np.ndarray) -> np.ndarray:
    return np.rint(film * 4095).astype(np.uint16)


FULL_WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


def reason_of(path: Path, **options: int) -> str:
    with pytest.raises(UnusableFilmError) as caught:
        read_radiograph(path, **options)
    assert str(caught.value).startswith(f"{path}: ")
    return caught.value.reason


def test_a_png_comes_back_to_half_a_gray_level(tmp_path):
    film = ramp()
    write_png(film, tmp_path / "new" / "film.png", notes={"where": "Köln"})
    again = read_radiograph(tmp_path / "new" / "film.png")
    assert again.dtype == np.float32 and again.shape == film.shape
    assert np.abs(again - film).max() <= 0.51 / 65535
    assert read_notes(tmp_path / "new" / "film.png") == {"where": "Köln"}
    write_png(again, tmp_path / "twice.png")
    assert np.array_equal(read_radiograph(tmp_path / "twice.png"), again)


@pytest.mark.parametrize(
    ("film", "message"),
    [
        (np.full((70, 70), 1.01), "to 1.01"),
        (np.full((70, 70), np.nan), "nan"),
        (np.zeros((1, 70, 70)), "shape"),
    ],
)
def test_arrays_that_are_not_films_are_not_written(tmp_path, film, message):
    with pytest.raises(ValueError, match=message):
        write_png(film, tmp_path / "film.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_gray_pictures_of_any_mode_are_read(tmp_path, ending, mode):
    image = Image.fromarray((ramp() * 255).astype(np.uint8)).convert(mode)
    if ending == "jpg" and mode in ("RGBA", "P"):
        pytest.skip("JPEG has no such mode")
    path = tmp_path / f"film.{ending}"
    image.save(path, **({"quality": 90} if ending == "jpg" else {}))
    assert np.abs(read_radiograph(path) - ramp()).mean() < 0.02


def test_exif_orientation_is_honoured(tmp_path):
    turned = Image.fromarray((np.rot90(ramp()) * 255).astype(np.uint8))
    exif = Image.Exif()
    exif[274] = 6  # to be turned clockwise by 90 degrees
    turned.save(tmp_path / "film.jpg", quality=95, exif=exif)
    assert np.abs(read_radiograph(tmp_path / "film.jpg") - ramp()).mean() < 0.01


def test_12_bits_in_a_16_bit_file_must_be_stated(tmp_path):
    path = tmp_path / "film.png"
    Image.fromarray(stored_12_bit(ramp())).save(path)
    assert reason_of(path) == "bit depth"
    assert np.abs(read_radiograph(path, bits=12) - ramp()).max() < 1e-3
    assert reason_of(path, bits=10) == "bit depth"


def test_16_bit_tiff_is_read_also_when_white_is_zero(tmp_path):
    stored = np.rint(ramp() * 65535).astype(np.uint16)
    Image.fromarray(stored).save(tmp_path / "film.tif")
    assert np.abs(read_radiograph(tmp_path / "film.tif") - ramp()).max() < 1e-4
    Image.fromarray(65535 - stored).save(tmp_path / "inverted.tif", tiffinfo={262: 0})
    assert np.abs(read_radiograph(tmp_path / "inverted.tif") - ramp()).max() < 1e-4


def test_unusable_pictures_are_named_with_the_reason(tmp_path):
    gray = Image.fromarray((ramp() * 255).astype(np.uint8))
    for ending in ("jpg", "png", "tif"):
        path = tmp_path / f"cut.{ending}"
        gray.save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert reason_of(path) == "unreadable"
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "page.jpg").write_text("<html>")
    assert reason_of(tmp_path / "empty.jpg") == reason_of(tmp_path / "page.jpg") == "unreadable"
    gray.resize((100, 63)).save(tmp_path / "tiny.png")
    assert reason_of(tmp_path / "tiny.png") == "too small"
    assert read_radiograph(tmp_path / "tiny.png", smallest_side=63).shape == (63, 100)
    gray.point(lambda _: 90).save(tmp_path / "blank.png")
    assert reason_of(tmp_path / "blank.png") == "constant"
    Image.merge("RGB", (gray, gray.rotate(180), gray)).save(tmp_path / "photo.png")
    assert reason_of(tmp_path / "photo.png") == "in colour"
    gray.save(tmp_path / "two.tif", save_all=True, append_images=[gray])
    assert reason_of(tmp_path / "two.tif") == "several frames"
    Image.fromarray(ramp()).save(tmp_path / "float.tif")
    assert reason_of(tmp_path / "float.tif") == "bit depth"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_radiograph(tmp_path / "nowhere.png")


def test_a_coloured_marker_does_not_make_a_film_a_photograph(tmp_path):
    picture = np.repeat((ramp(200, 200) * 255).astype(np.uint8)[..., None], 3, axis=-1)
    picture[:6, :6] = (255, 0, 0)
    Image.fromarray(picture).save(tmp_path / "film.png")
    assert read_radiograph(tmp_path / "film.png").shape == (200, 200)


def test_the_reason_survives_the_way_between_processes(tmp_path):
    error = pickle.loads(pickle.dumps(UnusableFilmError(tmp_path, "constant", "shows nothing")))
    assert (error.reason, str(error)) == ("constant", f"{tmp_path}: shows nothing.")


@pytest.mark.parametrize("bits", [12, 14, 16])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_dicom_of_any_depth_and_both_polarities_shows_the_same(tmp_path, bits, kind):
    film = ramp() if kind == "MONOCHROME2" else 1 - ramp()
    stored = np.rint(film * (2**bits - 1)).astype(np.uint16)
    window = {"WindowCenter": 2 ** (bits - 1), "WindowWidth": 2**bits}
    path = write_dicom(
        tmp_path / "film", stored, bits=bits, PhotometricInterpretation=kind, **window
    )
    assert np.abs(read_radiograph(path) - ramp()).max() < 2e-3


def test_rescale_and_window_are_applied_in_that_order(tmp_path):
    stored = stored_12_bit(ramp())
    # Displayed units run from -100 to 309.5; the window shows 0 to 200 of them.
    tags = {"RescaleSlope": 0.1, "RescaleIntercept": -100, "WindowCenter": 100}
    tags |= {"WindowWidth": 200, "VOILUTFunction": "LINEAR_EXACT"}
    film = read_radiograph(write_dicom(tmp_path / "film", stored, **tags))
    assert np.abs(film - np.clip((stored * 0.1 - 100) / 200, 0, 1)).max() < 1e-3


def test_signed_pixels_and_a_sigmoid_window_are_read(tmp_path):
    stored = stored_12_bit(ramp()).astype(np.int16) - 2048
    tags = {"WindowCenter": 0, "WindowWidth": 1000, "VOILUTFunction": "SIGMOID"}
    path = write_dicom(tmp_path / "film", stored, **tags)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        film = read_radiograph(path)
    assert np.abs(film - 1 / (1 + np.exp(-4 * stored / 1000))).max() < 1e-3


def lookup_table(entries: np.ndarray, bits: int, *, first: int = 0, count: int = 0) -> Dataset:
    """A table of 16-bit words that says it has `bits`, and `count` entries if that is given."""
    table = Dataset()
    table.LUTDescriptor = [count or len(entries) % 65536, first, bits]
    table.LUTData = entries.astype(np.uint16).tobytes()
    table.ModalityLUTType = "US"
    return table


@pytest.mark.parametrize("declared", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_lookup_table_of_12_bits_is_bright_whatever_it_declares(tmp_path, declared, kind):
    table = lookup_table(np.arange(4096), declared)
    path = write_dicom(tmp_path / "film", stored_12_bit(ramp()), **{kind: [table]})
    # Without a VOI LUT or window, the 0.1st and 99.9th percentiles are black and white.
    assert np.abs(read_radiograph(path) - ramp()).max() < (2e-3 if kind[0] == "V" else 2e-2)


def test_a_modality_table_comes_before_the_window(tmp_path):
    stored = stored_12_bit(ramp())
    tags = {"ModalityLUTSequence": [lookup_table(np.arange(4096) // 2, 12)]}
    tags |= {"WindowCenter": 512, "WindowWidth": 1024, "VOILUTFunction": "LINEAR_EXACT"}
    film = read_radiograph(write_dicom(tmp_path / "film", stored, **tags))
    assert np.abs(film - np.clip(stored // 2 / 1024, 0, 1)).max() < 1e-3


def test_a_table_that_was_emptied_gives_way_to_the_window(tmp_path):
    tags = {"VOILUTSequence": [Dataset()], "WindowCenter": 1024, "WindowWidth": 2048}
    film = read_radiograph(write_dicom(tmp_path / "film", stored_12_bit(ramp()), **tags))
    assert np.abs(film - np.clip(2 * ramp(), 0, 1)).max() < 2e-3


def test_a_film_in_another_encoding_and_without_preamble_shows_the_same(tmp_path):
    table = lookup_table(np.arange(4096), 16)
    path = write_dicom(
        tmp_path / "film", stored_12_bit(ramp()), VOILUTSequence=[table], PixelSpacing=[0.2, 0.2]
    )
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(tmp_path / "implicit", implicit_vr=True, little_endian=True)
    del dataset.file_meta, dataset.preamble
    bare = tmp_path / "bare"
    pydicom.dcmwrite(bare, dataset, implicit_vr=True, little_endian=True)
    assert bare.read_bytes()[128:132] != b"DICM"
    for other in (tmp_path / "implicit", bare):
        assert np.array_equal(read_radiograph(other), read_radiograph(path))
        assert read_pixel_spacing_mm(other) == (0.2, 0.2)


def test_a_table_of_65536_entries_says_0(tmp_path):
    stored = np.rint(ramp() * 65535).astype(np.uint16)
    path = write_dicom(
        tmp_path / "film", stored, bits=16, VOILUTSequence=[lookup_table(np.arange(65536), 16)]
    )
    assert pydicom.dcmread(path).VOILUTSequence[0].LUTDescriptor[0] == 0
    assert np.abs(read_radiograph(path) - ramp()).max() < 1e-3


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("count", [256, 255])
def test_a_table_of_8_bits_is_read_from_bytes_and_from_words(tmp_path, packed, count):
    entries = np.arange(count)
    table = lookup_table(entries, 8)
    if packed:
        table.LUTData = entries.astype(np.uint8).tobytes() + bytes(count % 2)
    stored = np.rint(ramp() * (count - 1)).astype(np.uint16)
    path = write_dicom(tmp_path / "film", stored, bits=8, VOILUTSequence=[table])
    assert np.abs(read_radiograph(path) - ramp()).max() < 8e-3


@pytest.mark.parametrize("first", [-1024, 64512])
def test_a_table_starts_where_it_says_also_below_zero(tmp_path, first):
    stored = stored_12_bit(ramp())
    table = lookup_table(np.arange(4096), 12)
    table.add_new("LUTDescriptor", "SS" if first < 0 else "US", [4096, first, 12])
    tags = {"RescaleSlope": 1, "RescaleIntercept": -1024, "VOILUTSequence": [table]}
    assert np.abs(
        read_radiograph(write_dicom(tmp_path / "film", stored, **tags)) - ramp()
    ).max() < (2e-3)


def test_a_table_shorter_than_it_says_is_refused_and_one_longer_is_cut(tmp_path):
    stored = stored_12_bit(ramp())
    short = lookup_table(np.arange(1024) * 4, 12, count=4096)
    path = write_dicom(tmp_path / "film", stored, VOILUTSequence=[short])
    assert reason_of(path) == "unreadable"
    with pytest.raises(ValueError, match="VOI LUT has 1024 entries, not the 4096 it says"):
        read_radiograph(path)
    long = lookup_table(np.arange(4097).clip(0, 4095), 12, count=4096)
    path = write_dicom(tmp_path / "film", stored, VOILUTSequence=[long])
    assert np.abs(read_radiograph(path) - ramp()).max() < 2e-3


@pytest.mark.parametrize(
    ("kind", "shape", "inverted"),
    [
        ("MONOCHROME2", "", False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "", True),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME1", "INVERSE", True),  # as the DX module demands: one inversion, not two
    ],
)
@pytest.mark.parametrize("by", ["window", "table", "percentiles"])
def test_polarity_is_honoured_once_however_it_is_said(tmp_path, kind, shape, inverted, by):
    stored = stored_12_bit(1 - ramp() if inverted else ramp())
    tags = {"PhotometricInterpretation": kind, "PresentationLUTShape": shape}
    tags |= FULL_WINDOW if by == "window" else {}
    tags |= {"VOILUTSequence": [lookup_table(np.arange(4096), 16)]} if by == "table" else {}
    film = read_radiograph(write_dicom(tmp_path / "film", stored, **tags))
    assert np.abs(film - ramp()).max() < 0.03


def test_a_negative_slope_turns_the_values_before_the_window(tmp_path):
    stored = stored_12_bit(1 - ramp())
    tags = {"RescaleSlope": -1, "RescaleIntercept": 4095}
    for name, more in (("window", FULL_WINDOW), ("none", {})):
        film = read_radiograph(write_dicom(tmp_path / name, stored, **tags, **more))
        assert np.abs(film - ramp()).max() < 0.03


def test_of_several_windows_the_first_that_can_be_used_counts(tmp_path):
    stored = stored_12_bit(ramp())
    tags = {"WindowCenter": [2048, 1024], "WindowWidth": [4096, 2048]}
    first = read_radiograph(write_dicom(tmp_path / "first", stored, **tags))
    assert np.abs(first - ramp()).max() < 2e-3
    tags["WindowWidth"] = [0, 2048]
    second = read_radiograph(write_dicom(tmp_path / "second", stored, **tags))
    assert np.abs(second - np.clip(2 * ramp(), 0, 1)).max() < 2e-3


def test_padding_of_signed_pixels_may_be_written_without_a_sign(tmp_path):
    stored = stored_12_bit(ramp()).astype(np.int16) - 2048
    stored[60:, :30] = -2000
    path = write_dicom(tmp_path / "film", stored, WindowCenter=0, WindowWidth=4096)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    dataset.save_as(path)
    assert (read_radiograph(path)[60:, :30] == 0).all()


def test_values_of_more_bits_than_stored_do_not_wrap_to_dark(tmp_path):
    # Decoders cut what BitsStored leaves out: 5000 of 12 bits would be read as 904.
    stored = np.rint(ramp() * 5000).astype(np.uint16)
    assert reason_of(write_dicom(tmp_path / "film", stored)) == "bit depth"


def test_overlays_and_signs_in_the_spare_bits_are_not_values(tmp_path):
    plain = stored_12_bit(ramp())
    expected = read_radiograph(write_dicom(tmp_path / "plain", plain, **FULL_WINDOW))
    path = write_dicom(tmp_path / "drawn", plain | (plain > 2000) * np.uint16(2**15), **FULL_WINDOW)
    dataset = pydicom.dcmread(path)
    dataset.add_new((0x6000, 0x0102), "US", 15)  # OverlayBitPosition
    dataset.save_as(path)
    assert np.array_equal(read_radiograph(path), expected)
    window = {"WindowCenter": 0, "WindowWidth": 4096}
    path = write_dicom(tmp_path / "signed", plain.astype(np.int16) - 2048, **window)
    assert np.array_equal(read_radiograph(path), expected)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"WindowCenter": 9000, "WindowWidth": 100}, r"window \(centre 9000, width 100\)"),
        # 12 bits in a window of 16: nearly black.
        ({"WindowCenter": 32768, "WindowWidth": 65536}, r"window .* from 0 to 4"),
        # A threshold: black and white only.
        ({"WindowCenter": 2048, "WindowWidth": 1}, r"window .*width 1"),
        ({"VOILUTSequence": [lookup_table(np.zeros(4096), 12)]}, "VOI LUT"),
    ],
)
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_a_film_is_never_read_as_darkness(tmp_path, tags, message, kind):
    stored = stored_12_bit(ramp())
    path = write_dicom(tmp_path / "film", stored, PhotometricInterpretation=kind, **tags)
    with pytest.raises(UnusableFilmError, match="shows nothing: its " + message) as caught:
        read_radiograph(path)
    assert caught.value.reason == "constant"


def test_a_lookup_table_is_scaled_by_its_own_depth(tmp_path):
    table = pydicom.Dataset()
    table.LUTDescriptor = [4096, 0, 10]
    # Up to 511 of 1023: a dim film.
    table.LUTData = (np.arange(4096) // 8).astype(np.uint16).tobytes()
    path = write_dicom(tmp_path / "film", stored_12_bit(ramp()), VOILUTSequence=[table])
    assert np.abs(read_radiograph(path) - ramp() / 2).max() < 2e-3


def test_without_a_window_the_film_fills_the_range_and_padding_is_black(tmp_path):
    stored = 1000 + stored_12_bit(ramp()) // 4
    stored[60:, :30] = 4095
    for kind in ("MONOCHROME1", "MONOCHROME2"):
        path = write_dicom(
            tmp_path / kind, stored, PhotometricInterpretation=kind, PixelPaddingValue=4095
        )
        film = read_radiograph(path)
        assert (film[60:, :30] == 0).all()
        shown = film if kind == "MONOCHROME2" else 1 - film
        assert np.abs(shown - ramp())[:60].max() < 0.02


@pytest.mark.parametrize("told", ["L F", "R F", "L H", "R H", "F L", "F R", "H L", "HR RP"])
def test_a_film_is_turned_upright_if_the_file_states_its_direction(tmp_path, told):
    letters = {direction[0] for direction in told.split()}
    transposed = told[0] in "HF"
    film = ramp()[::-1] if "H" in letters else ramp()
    film = film[:, ::-1] if "R" in letters else film
    film = film.T if transposed else film
    path = write_dicom(
        tmp_path / "film",
        stored_12_bit(film),
        PatientOrientation=told.split(),
        ImagerPixelSpacing=[0.1, 0.2],
        **FULL_WINDOW,
    )
    assert np.abs(read_radiograph(path) - ramp()).max() < 2e-3
    assert read_pixel_spacing_mm(path) == ((0.2, 0.1) if transposed else (0.1, 0.2))


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Modality": "CT"}, "no film"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "no film"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "in colour"),
        ({"NumberOfFrames": 2}, "several frames"),
        ({"WindowCenter": 100, "WindowWidth": 0.5}, "unreadable"),
        ({"WindowCenter": 100, "WindowWidth": 0}, "unreadable"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "unreadable"),
        ({"PresentationLUTShape": "LIN OD"}, "unreadable"),
        ({"WindowCenter": 9000, "WindowWidth": 100}, "constant"),
    ],
)
def test_dicom_that_is_not_a_single_film_is_refused(tmp_path, tags, reason):
    assert reason_of(write_dicom(tmp_path / "film", stored_12_bit(ramp()), **tags)) == reason


def test_dicom_cut_off_anywhere_is_unreadable(tmp_path):
    path = write_dicom(tmp_path / "film", stored_12_bit(ramp()), **FULL_WINDOW)
    content = path.read_bytes()
    for size in (140, 300, len(content) // 2, len(content) - 2):
        path.write_bytes(content[:size])
        assert reason_of(path) in ("unreadable", "no film")


@pytest.mark.parametrize(
    ("tags", "spacing"),
    [
        ({}, None),
        ({"PixelSpacing": [0, 0]}, None),
        ({"PixelSpacing": [0.14, 0.15]}, (0.14, 0.15)),
        ({"PixelSpacing": [-1, -1]}, None),
        ({"PixelSpacing": [0.2, 0]}, None),
        ({"PixelSpacing": ["nan", "0.2"]}, None),
        ({"PixelSpacing": ["0.2", "inf"]}, None),
        ({"PixelSpacing": [0.003, 0.003]}, None),
        ({"PixelSpacing": [3000, 3000]}, None),
        ({"PixelSpacing": [0.003, 0.003], "ImagerPixelSpacing": [0.1, 0.1]}, (0.1, 0.1)),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.2, 0.2]}, (0.2, 0.2)),
        ({"PixelSpacing": [0.3], "ImagerPixelSpacing": [0.2, 0.2]}, (0.2, 0.2)),
    ],
)
def test_spacing_is_returned_only_if_it_is_known(tmp_path, tags, spacing):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydicom, about "nan" as a number
        path = write_dicom(tmp_path / "film", stored_12_bit(ramp()), **tags)
        assert read_pixel_spacing_mm(path) == spacing
    write_png(ramp(), tmp_path / "film.png")
    assert read_pixel_spacing_mm(tmp_path / "film.png") is None


@pytest.mark.parametrize("words", [b"unknown\\no", b"0,20\\0,20"])
def test_a_spacing_that_is_not_a_number_does_not_hide_that_of_the_detector(tmp_path, words):
    spacings = {"PixelSpacing": [7.7777, 7.777], "ImagerPixelSpacing": [0.2, 0.2]}
    path = write_dicom(tmp_path / "film", stored_12_bit(ramp()), **spacings)
    content, written = path.read_bytes(), b"7.7777\\7.777"
    assert content.count(written) == 1
    path.write_bytes(content.replace(written, words.ljust(len(written))))
    assert read_pixel_spacing_mm(path) == (0.2, 0.2)


@pytest.mark.parametrize(
    ("tags", "remarks"),
    [
        ({}, []),
        ({"BodyPartExamined": "", "ViewPosition": ""}, []),
        ({"BodyPartExamined": "CHEST", "ViewPosition": "PA"}, []),
        ({"BodyPartExamined": "THORAX", "ViewPosition": "AP SUPINE"}, []),
        ({"BodyPartExamined": "TIBIA", "ViewPosition": "AP"}, ["body part TIBIA"]),
        ({"BodyPartExamined": "TSPINE"}, ["body part TSPINE"]),
        ({"ViewPosition": "LL"}, ["view LL"]),
        ({"ViewPosition": "PA OBLIQUE"}, ["view PA OBLIQUE"]),
    ],
)
def test_header_entries_against_a_chest_film_are_reported(tmp_path, tags, remarks):
    path = write_dicom(tmp_path / "film", stored_12_bit(ramp()), **tags)
    assert header_remarks(path) == remarks
    write_png(ramp(), tmp_path / "film.png")
    assert header_remarks(tmp_path / "film.png") == []


def test_the_body_part_may_be_given_by_a_code(tmp_path):
    for meaning, remarks in (("Chest", []), ("Lower leg", ["body part LOWER LEG"])):
        region = Dataset()
        region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "1", "SCT", meaning
        path = write_dicom(
            tmp_path / "film", stored_12_bit(ramp()), AnatomicRegionSequence=[region]
        )
        assert header_remarks(path) == remarks


def test_shrinking_is_antialiased_and_keeps_the_sides():
    stripes = np.tile(np.float32([0, 1]), (400, 200))
    small = resize_shorter_side(stripes, 100)
    assert small.shape == (100, 100) and small.dtype == np.float32
    assert np.abs(small[:, 2:-2] - 0.5).max() < 0.05
    assert resize_shorter_side(ramp(300, 451), 100).shape == (100, 150)
    assert np.abs(resize_shorter_side(ramp(200, 250), 80) - ramp(80, 100))[25:].max() < 0.02
    edge = np.zeros((200, 200), np.float32)
    edge[:, 100:] = 1
    assert resize_shorter_side(edge, 70).min() == 0 and resize_shorter_side(edge, 70).max() == 1
    assert resize_shorter_side(edge, 200) is edge


def test_the_real_chest_film_stands_upright_with_its_heart_on_the_right():
    spec = importlib.util.find_spec("data_store")
    if spec is None:
        pytest.skip("needs pip install --no-deps -r requirements-data.txt")
    path = Path(spec.submodule_search_locations[0]) / "data" / "RG1_UNCR.dcm"
    film = read_radiograph(path)
    assert film.shape == (1955, 1841)
    assert read_pixel_spacing_mm(path) is None
    # MONOCHROME1: the mediastinum is brighter than the lungs beside it, the abdomen than both.
    spine = film[700:900, 880:960]
    right_lung, left_lung = film[700:900, 400:600], film[700:900, 1150:1350]
    assert spine.mean() > max(right_lung.mean(), left_lung.mean()) + 0.1
    assert film[1750:1850, 400:1400].mean() > right_lung.mean() + 0.1
    # The heart lies on the patient's left, which is the viewer's right.
    assert film[1150:1300, 1000:1150].mean() > film[1150:1300, 640:790].mean() + 0.05
