"""Radiographs: the film of a file of any format, and its lossless writing as PNG.

A film is a float32 array (rows, columns) in [0, 1] as it is displayed: bright is dense, rows grow
towards the feet, and on a frontal view columns grow towards the patient's left. On disk it is a
16-bit grayscale PNG. Text burned into a film, overlays and shutters are not changed.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile, PngInfo

from diffct.atomic import atomic_file
from diffct.imaging.contrast import is_blank
from diffct.imaging.dicom import is_dicom
from diffct.imaging.dicom_film import UnusableFilmError, read_dicom_film
from diffct.imaging.film_display import MIN_GRAY_SHARE, gray_share

_FORMATS = ("PNG", "JPEG", "TIFF")
_TIFF_PHOTOMETRIC = 262
_WHITE_IS_ZERO = 0

# JPEG stores gray as luma and chroma, so equal channels may differ by some steps when read; a
# coloured marker or text of a few pixels does not make a film a colour photograph.
_COLOUR_STEPS = 16
_COLOUR_SHARE = 1e-3


def read_radiograph(
    path: str | Path, *, bits: int = 16, smallest_side: int = 64, dark: bool = False
) -> np.ndarray:
    """Read one film from PNG, JPEG, TIFF or DICOM, upright and with bright as dense.

    EXIF orientation, DICOM's PatientOrientation, MONOCHROME1 and display windows are applied; RGB
    whose channels agree counts as gray; transparency is ignored.

    Args:
        path: The file.
        bits: Bits in use in 16-bit PNG and TIFF files; DICOM files state their own.
        smallest_side: Shortest side in pixels that is accepted.
        dark: Whether a film may show nothing, or use a small part of its bits, as samples may.

    Returns:
        Gray values in [0, 1], float32 with shape (rows, columns).

    Raises:
        FileNotFoundError: There is no such file.
        UnusableFilmError: A ValueError with a `reason`: the file is truncated, not an image, in
            colour, too small, constant, has several frames, or does not fit `bits`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    film = read_dicom_film(path, dark=dark) if is_dicom(path) else _read_picture(path, bits, dark)
    if min(film.shape) < smallest_side:
        height, width = film.shape
        raise UnusableFilmError(
            path, "too small", f"has {height}x{width} pixels, fewer than {smallest_side} on a side"
        )
    if not dark and is_blank(film):
        raise UnusableFilmError(path, "constant", "shows nothing: all pixels have the same value")
    return film


def read_source_film(path: str | Path, *, bits: int = 16) -> np.ndarray:
    """Read a film of a hospital's archive, and refuse one that is almost only black and white.

    Args:
        path: As for `read_radiograph`.
        bits: As for `read_radiograph`.

    Returns:
        Gray values in [0, 1], float32 with shape (rows, columns).

    Raises:
        FileNotFoundError: There is no such file.
        UnusableFilmError: As for `read_radiograph`, or almost no pixel is gray.
    """
    film, path = read_radiograph(path, bits=bits), Path(path)
    gray = gray_share(film)
    if gray < MIN_GRAY_SHARE:
        raise UnusableFilmError(
            path,
            "constant",
            f"shows nothing: {gray:.1%} of its pixels lie between black and white, and its values"
            f" go from {film.min():.2g} to {film.max():.2g} of white",
        )
    return film


def resize_shorter_side(film: np.ndarray, size: int) -> np.ndarray:
    """Scale a film so that its shorter side has `size` pixels, with antialiasing (Lanczos).

    Args:
        film: Gray values in [0, 1] with shape (rows, columns). A smaller film is enlarged.
        size: Pixels.

    Returns:
        Gray values in [0, 1], float32; the longer side is rounded to whole pixels.

    Raises:
        ValueError: `size` is not positive.
    """
    if size < 1:
        raise ValueError(f"size is {size}; give 1 or more pixels.")
    shorter = min(film.shape)
    height, width = (round(side * size / shorter) for side in film.shape)
    if (height, width) == film.shape:
        return film.astype(np.float32, copy=False)
    image = Image.fromarray(np.ascontiguousarray(film, dtype=np.float32))
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    # Lanczos overshoots at edges.
    return np.clip(np.asarray(resized), 0.0, 1.0)


def write_png(
    film: np.ndarray, path: str | Path, *, notes: Mapping[str, str] | None = None
) -> None:
    """Write a film as 16-bit grayscale PNG, atomically.

    Args:
        film: Gray values in [0, 1] with shape (rows, columns).
        path: The file; missing folders are created.
        notes: Texts to store in the file, without identifiers; `read_notes` returns them.

    Raises:
        ValueError: The film has another shape or values outside [0, 1].
        OSError: The disk is full.
    """
    path = Path(path)
    if film.ndim != 2 or film.size == 0:
        raise ValueError(f"{path}: a film has the shape (rows, columns), not {film.shape}.")
    low, high = float(film.min()), float(film.max())
    if not (low >= 0 and high <= 1):  # also true of NaN
        raise ValueError(f"{path}: a film has values in [0, 1], not {low:g} to {high:g}.")
    text = PngInfo()
    for key, value in (notes or {}).items():
        text.add_itxt(key, value)
    stored = np.rint(film.astype(np.float64) * 65535).astype(np.uint16)
    with atomic_file(path) as partial:
        Image.fromarray(stored).save(partial, format="PNG", pnginfo=text)


def read_notes(path: str | Path) -> dict[str, str]:
    """Return the texts that `write_png` stored in a file.

    Args:
        path: A PNG file.

    Returns:
        The texts by name; empty if the file is damaged.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            texts = image.text if isinstance(image, PngImageFile) else {}
            return {key: str(value) for key, value in texts.items()}
    except (OSError, SyntaxError, ValueError):
        return {}


def _read_picture(path: Path, bits: int, dark: bool) -> np.ndarray:
    """Read a PNG, JPEG or TIFF file."""
    try:
        with Image.open(path, formats=_FORMATS) as opened:
            frames = getattr(opened, "n_frames", 1)
            if frames > 1:
                raise UnusableFilmError(path, "several frames", f"holds {frames} images")
            photometric = getattr(opened, "tag_v2", {}).get(_TIFF_PHOTOMETRIC)
            image = ImageOps.exif_transpose(opened)
            image.load()
    except UnidentifiedImageError as error:
        raise UnusableFilmError(path, "unreadable", "is no PNG, JPEG, TIFF or DICOM") from error
    except UnusableFilmError:
        raise
    # Image libraries raise all of these on damaged files, Pillow also SyntaxError.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # the disk or the permissions are at fault, not the file
        raise UnusableFilmError(path, "unreadable", f"is damaged or cut off ({error})") from error
    if image.mode.startswith("I"):
        film = _scale_16_bit(np.asarray(image), path, bits, dark)
        # Pillow inverts such TIFF files only when they have 8 bits.
        return 1 - film if photometric == _WHITE_IS_ZERO else film
    if image.mode == "F":
        raise UnusableFilmError(path, "bit depth", "has floating-point values of unknown range")
    if image.mode in ("1", "L", "LA"):
        gray = np.asarray(image.convert("L"))
    else:
        gray = _gray_of_rgb(np.asarray(image.convert("RGB")), path)
    return gray.astype(np.float32) / np.float32(255)


def _scale_16_bit(stored: np.ndarray, path: Path, bits: int, dark: bool) -> np.ndarray:
    """Scale integers to [0, 1]; refuse a film that uses more or far fewer bits than stated."""
    if not 8 <= bits <= 16:
        raise ValueError(f"bits is {bits}; 16-bit files use 8 to 16 bits.")
    highest = int(stored.max())
    if stored.min() < 0 or highest >= 2**bits:
        raise UnusableFilmError(
            path, "bit depth", f"has gray values up to {highest}, more than {bits} bits hold"
        )
    # A film in the lowest sixteenth of the range has 12 bits that were stated as 16.
    if not dark and 0 < highest < 2 ** (bits - 4):
        raise UnusableFilmError(
            path, "bit depth", f"uses {highest.bit_length()} of {bits} bits; state the bits in use"
        )
    return stored.astype(np.float32) / np.float32(2**bits - 1)


def _gray_of_rgb(picture: np.ndarray, path: Path) -> np.ndarray:
    """Return the gray values of uint8 (rows, columns, 3) whose channels agree."""
    if np.mean(np.ptp(picture, axis=-1) > _COLOUR_STEPS) > _COLOUR_SHARE:
        raise UnusableFilmError(path, "in colour", "is a colour picture, not a radiograph")
    return picture[..., 1]
