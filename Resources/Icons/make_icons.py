"""Draw the extension's and the modules' icons: `python Resources/Icons/make_icons.py` (needs Pillow).

Each icon shows a left atrium from behind, with its four pulmonary veins and its appendage. The atrium is filled
(extension), has an outline on one half (segmentation), or lies between two circular arrows (training).
"""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIZE = 128  # pixels; the Extensions Catalog demands this size
SCALE = 8  # An icon is drawn larger by this factor and then reduced, for smooth edges.
CANVAS = SIZE * SCALE

NAVY_TOP, NAVY_BOTTOM = (38, 62, 110), (14, 24, 50)
CORAL_LIGHT, CORAL_DARK = (255, 150, 128), (206, 52, 66)
CYAN = (92, 226, 231)
GOLD = (255, 205, 96)
GREYS = (176, 186, 204), (96, 108, 132)
DEEP = (96, 14, 40)
RIM = (255, 222, 210)

# (start, end, radius) in a unit square, y down: the lobes of the atrium, then the veins, then the appendage.
STROKES = (
    ((0.43, 0.49), (0.57, 0.49), 0.205),
    ((0.45, 0.62), (0.55, 0.62), 0.165),
    ((0.34, 0.43), (0.14, 0.32), 0.066),
    ((0.33, 0.58), (0.13, 0.65), 0.062),
    ((0.66, 0.43), (0.86, 0.32), 0.066),
    ((0.67, 0.58), (0.87, 0.65), 0.062),
    ((0.38, 0.36), (0.33, 0.20), 0.056),
    ((0.33, 0.20), (0.40, 0.15), 0.044),
)
VEINS = STROKES[2:6]


def vertical_gradient(top: tuple[int, int, int], bottom: tuple[int, int, int]) -> Image.Image:
    ramp = Image.linear_gradient("L").resize((CANVAS, CANVAS))
    return Image.composite(Image.new("RGB", ramp.size, bottom), Image.new("RGB", ramp.size, top), ramp)


def rounded_tile() -> Image.Image:
    """Return the dark tile with round corners that is the background of every icon."""
    mask = Image.new("L", (CANVAS, CANVAS), 0)
    margin = CANVAS // 64
    ImageDraw.Draw(mask).rounded_rectangle(
        (margin, margin, CANVAS - margin, CANVAS - margin), radius=CANVAS // 5, fill=255
    )
    tile = vertical_gradient(NAVY_TOP, NAVY_BOTTOM).convert("RGBA")
    tile.putalpha(mask)
    return tile


def to_pixels(point: tuple[float, float], size: float) -> tuple[float, float]:
    """Convert a point of the unit square to pixels; the atrium's centre becomes the centre of the canvas."""
    x, y = point
    return (0.5 + (x - 0.5) * size) * CANVAS, (0.5 + (y - 0.48) * size) * CANVAS


def vein_openings(size: float) -> Image.Image:
    """Return the mask of the openings at the ends of the veins."""
    mask = Image.new("L", (CANVAS, CANVAS), 0)
    for _, end, radius in VEINS:
        (x, y), r = to_pixels(end, size), 0.52 * radius * size * CANVAS
        ImageDraw.Draw(mask).ellipse((x - r, y - r, x + r, y + r), fill=255)
    return mask


def atrium(size: float) -> Image.Image:
    """Return the mask of the atrium."""
    mask = Image.new("L", (CANVAS, CANVAS), 0)
    draw = ImageDraw.Draw(mask)
    for start, end, radius in STROKES:
        r = radius * size * CANVAS
        (x0, y0), (x1, y1) = to_pixels(start, size), to_pixels(end, size)
        draw.line((x0, y0, x1, y1), fill=255, width=round(2 * r))
        for x, y in ((x0, y0), (x1, y1)):
            draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
    # Thresholding the blurred mask rounds the corners between veins and body.
    soft = mask.filter(ImageFilter.GaussianBlur(0.028 * size * CANVAS))
    return soft.point(lambda value: 255 if value > 127 else 0).filter(ImageFilter.GaussianBlur(SCALE / 2))


def rim(mask: Image.Image, width: float) -> Image.Image:
    """Return the band inside the border of a mask; the band is `width` icon pixels wide."""
    # Filter a reduced mask, since a minimum filter with a large window is slow.
    reduction = 4
    small = mask.resize((CANVAS // reduction, CANVAS // reduction), Image.Resampling.LANCZOS)
    inner = small.filter(ImageFilter.MinFilter(2 * round(width * SCALE / reduction) + 1))
    return ImageChops.subtract(mask, inner.resize(mask.size, Image.Resampling.BICUBIC))


def paint(tile: Image.Image, mask: Image.Image, color: Image.Image | tuple[int, int, int]) -> None:
    """Paint a colour or a picture onto the tile inside the mask; the corners of the tile stay round."""
    corners = tile.getchannel("A")
    picture = color if isinstance(color, Image.Image) else Image.new("RGB", tile.size, color)
    tile.paste(picture.convert("RGBA"), (0, 0), ImageChops.multiply(mask, corners))
    tile.putalpha(corners)


def shade(mask: Image.Image) -> Image.Image:
    """Return a picture in coral colours for the inside of a mask, lit from the upper left."""
    flesh = vertical_gradient(CORAL_LIGHT, CORAL_DARK)
    lit = ImageChops.offset(mask.filter(ImageFilter.GaussianBlur(CANVAS / 22)), -CANVAS // 28, -CANVAS // 28)
    return Image.composite(flesh, Image.blend(flesh, Image.new("RGB", flesh.size, DEEP), 0.55), lit)


def glow(tile: Image.Image, mask: Image.Image, color: tuple[int, int, int], strength: float) -> None:
    """Paint a soft light around a mask."""
    light = mask.filter(ImageFilter.GaussianBlur(CANVAS / 18)).point(lambda value: round(value * strength))
    paint(tile, light, color)


def extension_icon() -> Image.Image:
    tile, heart = rounded_tile(), atrium(1.02)
    glow(tile, heart, CORAL_LIGHT, 0.5)
    paint(tile, heart, shade(heart))
    paint(tile, rim(heart, 1), RIM)
    paint(tile, vein_openings(1.02), DEEP)
    return tile


def segmentation_icon() -> Image.Image:
    """Draw the atrium: the left half grey, as in a scan; the right half coloured and outlined, as in a segmentation."""
    tile, heart = rounded_tile(), atrium(1.02)
    right_half = Image.new("L", heart.size, 0)
    ImageDraw.Draw(right_half).rectangle((CANVAS // 2, 0, CANVAS, CANVAS), fill=255)
    glow(tile, ImageChops.multiply(heart, right_half), CYAN, 0.35)
    paint(tile, ImageChops.multiply(heart, ImageChops.invert(right_half)), vertical_gradient(*GREYS))
    paint(tile, ImageChops.multiply(heart, right_half), shade(heart))
    paint(tile, ImageChops.multiply(rim(heart, 2.5), right_half), CYAN)
    paint(tile, vein_openings(1.02), DEEP)
    line = Image.new("L", heart.size, 0)
    ImageDraw.Draw(line).line((CANVAS // 2, CANVAS * 0.09, CANVAS // 2, CANVAS * 0.91), fill=255, width=2 * SCALE)
    paint(tile, line, CYAN)
    return tile


def arrow(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], start: float, end: float) -> None:
    """Draw a circular arrow within `box` from the angle `start` to `end`, in degrees, with its head at `end`."""
    x0, y0, x1, y1 = (value * CANVAS for value in box)
    draw.arc((x0, y0, x1, y1), start, end, fill=255, width=6 * SCALE)
    radius, angle = (x1 - x0) / 2 - 3 * SCALE, math.radians(end)
    x, y = (x0 + x1) / 2 + radius * math.cos(angle), (y0 + y1) / 2 + radius * math.sin(angle)
    along, across, head = (-math.sin(angle), math.cos(angle)), (math.cos(angle), math.sin(angle)), 8 * SCALE
    tip = (x + along[0] * head * 1.3, y + along[1] * head * 1.3)
    sides = [(x + sign * across[0] * head, y + sign * across[1] * head) for sign in (1, -1)]
    draw.polygon([tip, *sides], fill=255)


def training_icon() -> Image.Image:
    """Draw the atrium between two arrows, which stand for the network's two branches."""
    tile, heart = rounded_tile(), atrium(0.68)
    paint(tile, heart, shade(heart))
    paint(tile, rim(heart, 1), RIM)
    paint(tile, vein_openings(0.68), DEEP)
    box = (0.1, 0.1, 0.9, 0.9)
    for color, start, end in ((GOLD, 202, 328), (CYAN, 22, 148)):
        mask = Image.new("L", heart.size, 0)
        arrow(ImageDraw.Draw(mask), box, start, end)
        paint(tile, mask, color)
    return tile


def main() -> None:
    root = Path(__file__).resolve().parents[2]
    for path, icon in (
        (root / "Resources/Icons/DCAMT.png", extension_icon()),
        (root / "DCAMTSegmentation/Resources/Icons/DCAMTSegmentation.png", segmentation_icon()),
        (root / "DCAMTTraining/Resources/Icons/DCAMTTraining.png", training_icon()),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        icon.resize((SIZE, SIZE), Image.Resampling.LANCZOS).save(path, optimize=True)


if __name__ == "__main__":
    main()
