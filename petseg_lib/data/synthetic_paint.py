"""A small painter for the synthetic pets: soft shapes given by distances, with fur, light and shadow.

Every shape is a field of signed distances to its outline (negative inside). One field gives the anti-aliased edge, the
round shading, the shadow on what lies behind and, jittered by a hair texture, the fur along the contour.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from petseg_lib.data.synthetic_shapes import Frame, Shape, vector_length

Colour = Sequence[float]


def rgb(colour: Colour | np.ndarray) -> np.ndarray:
    """A colour (three numbers, 0..1) as (3, 1, 1) float32, ready to meet planes of pixels."""
    return np.asarray(colour, np.float32).reshape(3, 1, 1)


COOL = rgb((0.80, 0.92, 0.70))  # how strongly shade takes red, green, blue away: shadows turn blue
WARM = rgb((1.00, 0.86, 0.62))  # how strongly light adds them: lights turn golden


@dataclass
class Spot:
    """The pixels that a shape touches: slices, own coordinates, distance in px, length along it (or own x)."""

    rows: slice
    columns: slice
    x: np.ndarray
    y: np.ndarray
    distance: np.ndarray
    along: np.ndarray


Paint = Colour | Callable[[Spot], np.ndarray]


@dataclass
class Painter:
    """A picture in the making: `image` (3, H, W) float32 RGB 0..1, `pet` (H, W) float32 coverage by the pet, 0..1."""

    height: int
    width: int
    rng: np.random.Generator
    light: tuple[float, float] = (-0.6, -0.8)
    image: np.ndarray = field(init=False)
    pet: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.image = np.ones((3, self.height, self.width), np.float32)
        self.pet = np.zeros((self.height, self.width), np.float32)
        rows, columns = np.mgrid[: self.height, : self.width].astype(np.float32)
        self.rows, self.columns = rows, columns
        white = np.pad(self.rng.standard_normal((256, 256), np.float32), 24, mode="wrap")
        streaks = cv2.GaussianBlur(white, (0, 0), sigmaX=5, sigmaY=0.8)[24:-24, 24:-24]
        self.hair = streaks / streaks.std()

    def noise(self, cells: float, octaves: int = 2) -> np.ndarray:
        """Smooth noise over the picture, about -1..1, with bumps of about 1/`cells` of its longer side."""
        total = np.zeros((self.height, self.width), np.float32)
        side = max(self.height, self.width)
        for octave in range(octaves):
            n = max(2, math.ceil(cells * 2**octave) + 1)
            grid = cv2.resize(self.rng.uniform(-1, 1, (n, n)).astype(np.float32), (side, side), None, 0, 0, cv2.INTER_CUBIC)
            total += grid[: self.height, : self.width] / 2**octave
        return total

    def spot(self, frame: Frame, shapes: Sequence[Shape], blend: float) -> Spot | None:
        """The pixels around some shapes, melted together over `blend`; None when they lie outside the picture."""
        bounds = np.array([shape.bounds() for shape in shapes])
        (x0, y0), (x1, y1) = bounds[:, :2].min(0), bounds[:, 2:].max(0)
        corners = np.array([frame.pixels(x, y) for x in (x0, x1) for y in (y0, y1)])
        pad = 8 + blend * frame.scale * 0.3
        (left, top), (right, bottom) = np.floor(corners.min(0) - pad).astype(int), np.ceil(corners.max(0) + pad).astype(int)
        rows, columns = slice(max(top, 0), min(bottom, self.height)), slice(max(left, 0), min(right, self.width))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return None
        x, y = frame.local(self.columns[rows, columns], self.rows[rows, columns])
        distance, along = shapes[0].distance(x, y)
        for shape in shapes[1:]:
            other, _ = shape.distance(x, y)
            h = np.clip(0.5 + 0.5 * (distance - other) / max(blend, 1e-3), 0, 1)
            distance = distance * (1 - h) + other * h - blend * h * (1 - h)
        return Spot(rows, columns, x, y, (distance * frame.scale).astype(np.float32), along)

    def _hair(self, spot: Spot, frame: Frame, flow: float | None, length: float) -> np.ndarray:
        """The hair texture, combed towards the angle `flow` (radians), or away from the origin when it is None."""
        x, y = spot.x, spot.y
        if flow is None:
            u, v = vector_length(x, y), np.arctan2(y, x)
        else:
            c, s = math.cos(flow), math.sin(flow)
            u, v = x * c + y * s, y * c - x * s + 0.12 * np.sin(2.1 * x + 1.3 * y)
        u, v = (u * (frame.scale / length)).astype(np.float32), (v * frame.scale).astype(np.float32)
        return cv2.remap(self.hair, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)

    def part(
        self,
        frame: Frame,
        shapes: Sequence[Shape],
        paint: Paint,
        *,
        blend: float = 0.0,
        fur: float = 0.0,
        flow: float | None = 0.0,
        length: float = 1.0,
        round_: float = 0.0,
        occlude: float = 0.0,
        opacity: float = 1.0,
        soft: float = 1.0,
        pet: bool = False,
    ) -> None:
        """Paint shapes over the picture.

        Args:
            frame: their coordinates.
            shapes: melted together over `blend` units.
            paint: a colour, or a function from a `Spot` to (3, h, w) colours.
            fur: length of the hair along the contour, px; it also sets how strongly hair shows on the surface.
            flow: direction the hair is combed to, radians; None: away from the frame's origin.
            length: stretches the hair texture along its flow.
            round_: strength of the round shading, 0..1.
            occlude: strength of the shadow it throws on the pet's parts behind it, 0..1.
            opacity: 0..1.
            soft: width of the edge, px.
            pet: whether it belongs to the pet and so to its mask.
        """
        spot = self.spot(frame, shapes, blend)
        if spot is None:
            return
        here = spot.rows, spot.columns
        image = self.image[:, *here]
        slope = _slope(spot.distance) if fur or round_ else None
        hair = self._hair(spot, frame, flow, length) if fur else None
        edge = spot.distance if hair is None else spot.distance + _fringe(spot, slope, frame, flow) * (fur * hair)
        cover = np.clip(0.5 - edge / soft, 0, 1) * opacity
        if occlude:
            shadow = occlude * np.exp(-np.maximum(spot.distance, 0) / (0.12 * frame.scale + 1)) * self.pet[here]
            image *= 1 - shadow * COOL
        colour = paint(spot) if callable(paint) else rgb(paint)
        if hair is not None:
            colour = colour * (1 + (0.025 + 0.012 * min(fur, 3.0)) * hair)
        if round_:
            colour = _lit(colour, spot.distance, slope, self.light, round_)
        image += (colour - image) * cover
        if pet:
            self.pet[here] = np.maximum(self.pet[here], cover)


def _slope(distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which way is out: the gradient of the distances, about of length 1."""
    return cv2.Sobel(distance, -1, 1, 0, scale=0.125), cv2.Sobel(distance, -1, 0, 1, scale=0.125)


def _fringe(spot: Spot, slope: tuple[np.ndarray, np.ndarray], frame: Frame, flow: float | None) -> np.ndarray | float:
    """How far hair stands off the contour: much where it is combed outwards, little where it lies along."""
    if flow is None:
        return 0.4
    c, s = math.cos(flow + frame.turn) * frame.flip, math.sin(flow + frame.turn)
    return 0.16 + 0.3 * np.abs(slope[0] * c + slope[1] * s)


def _lit(colour: np.ndarray, distance: np.ndarray, slope: tuple[np.ndarray, np.ndarray], lamp: tuple[float, float],
         strength: float) -> np.ndarray:  # fmt: skip
    """Colours with soft light on the side of the lamp and cool shade on the other, strongest near the contour."""
    depth = max(float(-distance.min()), 1.0)
    bulge = np.clip(1 + distance / depth, 0, 1) ** 2
    light = strength * bulge * (slope[0] * lamp[0] + slope[1] * lamp[1])
    bright, dark = np.maximum(light, 0), np.maximum(-light, 0)
    lit = dark * -COOL
    lit += bright * (0.4 * WARM)
    lit += 1
    lit *= colour
    lit += bright * (0.25 * WARM)
    return lit
