"""Decode image files to square RGB bytes, and split labelled images into disjoint parts."""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from lightleak.errors import UserError
from lightleak.randomness import spread

SUFFIXES = {f".{name}" for name in ("jpg", "jpeg", "jfif", "png", "apng", "bmp", "gif", "webp", "tif", "tiff")}
SUFFIXES |= {f".{name}" for name in ("ppm", "pgm", "pbm", "jp2", "avif")}
# What Pillow may open, whatever a file's name says: an EPS called .jpg must not start Ghostscript.
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners put into 16-bit files
BITS_PER_SAMPLE, LARGEST_VALUE = 258, 281  # TIFF's tags
SMALLEST = 8  # pixels along the shorter side; what is smaller shows nobody
LARGEST = 4096  # pixels a side that images are read at
PARTS = ("train", "validation", "test", "judge")
FRACTIONS = (0.45, 0.1, 0.15, 0.3)


@dataclass(frozen=True)
class Frame:
    """The part of a picture that is used, and how it is reduced: by default the largest centred square, by Lanczos."""

    share: float = 1.0  # side of the centre square over the picture's shorter side
    box: tuple[int, int, int, int] | None = None  # left, top, right, bottom in pixels, in place of a centre square
    stretch: bool = False  # all of it (of the box), squeezed into a square
    bilinear: bool = False  # in place of Lanczos

    def __call__(self, image: Image.Image, size: int) -> Image.Image:
        """That part of `image`, resized to size x size with antialiasing."""
        left, top, right, bottom = 0, 0, image.width, image.height
        if self.box is not None:
            left, top = max(0, self.box[0]), max(0, self.box[1])
            right, bottom = min(image.width, self.box[2]), min(image.height, self.box[3])
            if right <= left or bottom <= top:
                raise UnreadableImageError("its box lies outside of it")
        if not self.stretch:
            side = max(1, round(min(right - left, bottom - top) * self.share))
            left, top = left + (right - left - side) // 2, top + (bottom - top - side) // 2
            right, bottom = left + side, top + side
        smooth = Image.Resampling.BILINEAR if self.bilinear else Image.Resampling.LANCZOS
        return image.crop((left, top, right, bottom)).resize((size, size), smooth)


class UnreadableImageError(UserError):
    """A file that holds no usable picture; the message is the reason, in a few words."""


@dataclass(frozen=True)
class DecodedImage:
    """A decoded picture, and what a reader should know about its file."""

    pixels: np.ndarray  # uint8, size x size x 3
    mark: str = ""  # hash of the whole picture before any crop; "" unless it was asked for
    enlarged: bool = False  # what counts of it is smaller than `size`
    bits: int = 0  # of grey in a 16-bit file: as many as hold its largest value; 0 for every other picture
    stated: bool = False  # the file says its depth itself


def decode(path: Path, size: int, frame: Frame = Frame(), bits: int | None = None) -> np.ndarray:
    """The part of the image at `path` that `frame` selects, upright and resized once, as uint8 size x size x 3.

    EXIF rotation is applied, transparency is laid over white, an animation gives its first frame. Grey in a 16-bit file
    is scaled by the depth that its TIFF tags state; else by `bits` (8 to 16), or by the fewest of 8, 10, 12, 14 and 16
    that hold its largest value. Raises UnreadableImageError with the reason: no image of the known formats, truncated,
    smaller than 8 pixels, or more pixels than Pillow's bound against decompression bombs.
    """
    return look(path, size, frame, bits).pixels


def look(path: Path, size: int, frame: Frame = Frame(), bits: int | None = None, marked: bool = False) -> DecodedImage:
    """As `decode`, with what a reader should know; `marked` also hashes the whole picture, which takes longer."""
    limit = Image.MAX_IMAGE_PIXELS or 0
    try:
        with Image.open(path, formats=formats()) as image:
            width, height = image.size  # before a JPEG is opened at a fraction of it
            if min(width, height) < SMALLEST:
                raise UnreadableImageError(f"only {width} x {height} pixels")
            if width * height > limit:
                raise Image.DecompressionBombError
            if frame.box is None and not marked:  # JPEG then skips detail that the resize would average away
                most = round(2 * size / frame.share)
                image.draft(None, (most, most))
            stated, raw = _stated_depth(image), " ".join(str(tile[3]) for tile in getattr(image, "tile", ()))
            upright = ImageOps.exif_transpose(image)
            deep = upright.mode.startswith("I;16") or (image.format == "PPM" and upright.mode == "I")
            own = (stated or _depth(int(np.asarray(upright).max()))) if deep else 0
            whole = _grey(upright, own if stated or not bits else bits) if deep else _as_rgb(upright)
            if ";16" in raw and not deep and 0 < int(np.asarray(whole).max()) < 16:
                # Pillow gives the upper 8 of 16 bits of colour; of 12 bits nothing would be left.
                raise UnreadableImageError("colour of 12 bits or fewer in a 16-bit file; save it with 8 bits a channel")
            mark = sha256(repr(upright.size).encode() + (upright if deep else whole).tobytes()) if marked else None
            return DecodedImage(
                np.asarray(frame(whole, size)),
                mark.hexdigest()[:20] if mark else "",
                enlarged=frame.box is None and min(width, height) * frame.share < size - 1e-9,
                bits=own,
                stated=bool(stated),
            )
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError("not an image") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UnreadableImageError(f"more than {limit // 1_000_000} million pixels") from None
    except Exception as error:  # a hostile file makes Pillow's decoders raise nearly anything
        raise UnreadableImageError(_reason(error)) from None


def check_size(size: int) -> None:
    """UserError unless images can have this many pixels per side."""
    if not SMALLEST <= size <= LARGEST:
        raise UserError(f"images have {SMALLEST} to {LARGEST:,} pixels a side, not {size}")


@cache
def formats() -> tuple[str, ...]:
    """The members of FORMATS that the installed Pillow can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _stated_depth(image: Image.Image) -> int:
    """Bits of grey that a TIFF's tags state, if fewer than 16; 0 where nothing says."""
    tags = getattr(image, "tag_v2", None) if image.format == "TIFF" else None
    if not tags or not image.mode.startswith("I;16"):
        return 0
    (bits, *_) = np.atleast_1d(tags.get(BITS_PER_SAMPLE, 16))
    (largest, *_) = np.atleast_1d(tags.get(LARGEST_VALUE, 0))
    if 8 <= int(bits) < 16:
        return int(bits)
    return int(largest).bit_length() if 255 <= int(largest) < 65535 else 0


def _depth(largest: int) -> int:
    """The fewest bits among DEPTHS that hold a value; 16 for a black picture."""
    return next(bits for bits in DEPTHS if largest < 2**bits) if largest else DEPTHS[-1]


def _grey(image: Image.Image, bits: int) -> Image.Image:
    """A grey picture whose white is 2^bits - 1."""
    values = np.asarray(image).astype(np.int64) * 255 // (2**bits - 1)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the path, so that files with the same trouble are counted together
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):  # no agreed white: stretch to the image's own range
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        span = max(values.max() - values.min(), 1e-12)
        return Image.fromarray(((values - values.min()) / span * 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def eight_bit(images: Tensor, size: int) -> Tensor:
    """Images N x 3 x H x W in [0, 1] as the 64-pixel attacks hand them to their judge: cut down (not rounded) to 256
    levels and resized by Pillow's bilinear filter to `size`, whose result is rounded to 256 levels again.
    """
    pixels = (images.detach().clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    resized = [Image.fromarray(one).resize((size, size), Image.Resampling.BILINEAR) for one in pixels]
    return torch.from_numpy(np.stack([np.asarray(one) for one in resized])).permute(0, 3, 1, 2).float().div(255)


def split(labels: Tensor, seed: int, fractions: tuple[float, ...] = FRACTIONS) -> tuple[Tensor, ...]:
    """Disjoint sorted indices that together cover all labels, each class divided by `fractions`.

    Every part gets at least one image of every class. What a class gets depends on the seed, the class and
    its own images alone. Raises UserError if a class has fewer images than there are parts.
    """
    parts: list[list[Tensor]] = [[] for _ in fractions]
    order = labels.sort(stable=True).indices
    present, counted = labels.unique(return_counts=True)
    for label, members in zip(present.tolist(), order.split(counted.tolist())):
        rng = torch.Generator().manual_seed(spread(seed, label))
        shuffled = members[torch.randperm(len(members), generator=rng)]
        counts = shares(len(members), fractions)
        for part, chosen in zip(parts, shuffled.split(counts)):
            part.append(chosen)
    empty = torch.empty(0, dtype=torch.int64)
    return tuple(torch.cat([empty, *part]).sort().values for part in parts)


def shares(count: int, fractions: tuple[float, ...]) -> list[int]:
    """Whole numbers near count * fractions, each at least 1, that sum to `count` (largest remainder)."""
    if count < len(fractions):
        raise UserError(f"a class needs at least {len(fractions)} images, one per part of the split; it has {count}")
    spare = count - len(fractions)  # one each first, the rest by what is still missing
    total = sum(fractions)
    wanted = [max(count * fraction / total - 1, 0.0) for fraction in fractions]
    scale = spare / sum(wanted) if spare else 0.0
    whole = [int(want * scale) for want in wanted]
    rest = sorted(range(len(fractions)), key=lambda part: (whole[part] - wanted[part] * scale, part))
    for part in rest[: spare - sum(whole)]:
        whole[part] += 1
    return [1 + number for number in whole]
