"""One image file as cameras, scanners and habits make it: upright, 8 bits, grey or RGB."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.datasets.folder import IMG_EXTENSIONS

from convnext_steps.errors import DataError

SUFFIXES = {suffix.lstrip(".") for suffix in IMG_EXTENSIONS} | {"gif", "jfif"}
BITS_PER_SAMPLE = 258  # a tag of TIFF files
TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")


def decode(content: bytes) -> Image.Image:
    """The first frame of an image file, in mode L if it is stored as grey, else RGB.

    It is turned as its EXIF orientation says. What is transparent shows white. Of 16 bits per
    channel the upper 8 are kept, as Pillow does with 16-bit colour.

    Raises:
        ValueError: its values are 32-bit integers, signed or floats, and so have no known range.
        Exception: the file is damaged; Pillow has a dozen kinds.
    """
    with Image.open(io.BytesIO(content)) as file:
        file.load()
        image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I;16") or (image.mode == "I" and file.format in ("PNG", "PPM")):
        bits = getattr(file, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))[0]
        return Image.fromarray((np.asarray(image) >> (bits - 8)).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            "the range of its values is unknown; save it with 8 or 16 bits per channel"
        )
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode in TRANSPARENT or "transparency" in image.info:
        image = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode == "P":
        image = image.convert("RGB")
        grey = bool(np.ptp(np.asarray(image), axis=2).max() == 0)
    return image.convert("L" if grey else "RGB")


def read_upright(path: str | Path) -> Image.Image:
    """The image in a file: see `decode`.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        return decode(Path(path).read_bytes())
    except Exception as error:
        raise DataError(f"cannot read the image {path} ({reason(error)})") from None


def reason(error: Exception) -> str:
    """Why an image cannot be read, in a few words."""
    if isinstance(error, UnidentifiedImageError):
        return "damaged, or not an image"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
