"""One image file, as cameras, scanners and habits make it: upright, 8 bits, grey or RGB."""

import io
import math
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from convnext_steps.errors import DataError

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # tags of TIFF files
WHITE_IS_ZERO = 0


@cache
def suffixes() -> frozenset[str]:
    """The suffixes, in lower case, of files that are read: `FORMATS`, as far as Pillow has them.

    Phones' MPO files are JPEG files with a second picture.
    """
    known = Image.registered_extensions()  # Pillow loads its plugins
    return frozenset(
        s for s, f in known.items() if f == "MPO" or (f in FORMATS and f in Image.OPEN)
    )


def decode(content: bytes) -> Image.Image:
    """The first frame of an image file, in mode L if it is stored as grey, else RGB.

    It is turned as its EXIF orientation says. Transparent parts show white. Of 16 bits per channel
    the upper 8 are kept, as Pillow does with 16-bit colour.

    Raises:
        ValueError: the values are floats or 32-bit integers, whose range is unknown.
        Exception: the file is damaged; Pillow has a dozen kinds.
    """
    suffixes()  # so that Pillow has its plugins
    formats = [name for name in FORMATS if name in Image.OPEN]
    with Image.open(io.BytesIO(content), formats=formats) as file:
        file.load()
        with suppress(Exception):  # damaged EXIF data turn nothing
            file.getexif()
        file.info.pop("exif", None)  # `exif_transpose` would write it anew, which may fail
        image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I;16") or (image.mode == "I" and file.format in ("PNG", "PPM")):
        return Image.fromarray(_eight_bits(np.asarray(image), getattr(file, "tag_v2", {})))
    if image.mode in ("I", "F"):
        raise ValueError(
            "the range of its values is unknown; save it with 8 or 16 bits per channel"
        )
    grey, palette = image.mode in ("1", "L", "LA", "La"), image.mode in ("P", "PA")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if palette:
        image = image.convert("RGB")
        grey = bool(np.ptp(np.asarray(image), axis=2).max() == 0)
    return image.convert("L" if grey else "RGB")


def _eight_bits(values: npt.NDArray[Any], tags: Mapping[int, Any]) -> npt.NDArray[np.uint8]:
    """The upper 8 bits of grey values of 16, or of 12 in a TIFF file."""
    (bits,) = tags.get(BITS_PER_SAMPLE, (16,))
    grey = (values >> (bits - 8)).astype(np.uint8)
    return ~grey if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else grey


def read_image(path: str | Path, as_stored: bool = False) -> Image.Image:
    """The image in a file: see `decode`; `as_stored`, for published data sets, as Pillow opens it.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        if not as_stored:
            return decode(Path(path).read_bytes())
        with Image.open(path) as image:
            image.load()
            return image
    except Exception as error:
        raise DataError(f"cannot read the image {path} ({reason(error)})") from None


def reason(error: Exception) -> str:
    """Why an image cannot be read, in a few words."""
    if isinstance(error, UnidentifiedImageError):
        return "damaged, or not an image of a kind that is read"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or math.inf):,} pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
