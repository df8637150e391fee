"""Shapes of the synthetic pets, each a field of signed distances to its outline (negative inside), and where they lie."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def vector_length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The length of vectors; several times faster than `np.hypot`, which guards against overflow."""
    return np.sqrt(x * x + y * y)


@dataclass(frozen=True)
class Blob:
    """An ellipse: centre, radii, and the angle (radians) that turns it."""

    x: float
    y: float
    rx: float
    ry: float
    angle: float = 0.0

    def bounds(self) -> tuple[float, float, float, float]:
        r = max(self.rx, self.ry)
        return self.x - r, self.y - r, self.x + r, self.y + r

    def distance(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        c, s = math.cos(self.angle), math.sin(self.angle)
        px, py = (x - self.x) * c + (y - self.y) * s, (y - self.y) * c - (x - self.x) * s
        if self.rx == self.ry:
            return vector_length(px, py) - self.rx, px
        px, py = px / self.rx, py / self.ry
        near = 1e-3  # keeps the centre, where both lengths are 0, as deep inside as its surroundings
        k1, k2 = vector_length(px, py), vector_length(px / self.rx, py / self.ry)
        short = min(self.rx, self.ry)
        return np.maximum((k1 + near) * (k1 - 1) / (k2 + near / short), -short), px


@dataclass(frozen=True)
class Limb:
    """A chain of round cones through points (x, y, radius): legs, tails, ears, whiskers."""

    points: tuple[tuple[float, float, float], ...]

    def bounds(self) -> tuple[float, float, float, float]:
        p = self.points
        left, top = min(x - r for x, _, r in p), min(y - r for _, y, r in p)
        return left, top, max(x + r for x, _, r in p), max(y + r for _, y, r in p)

    def distance(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance to the chain, and the length along it (for rings and stripes)."""
        best, along, walked = None, None, 0.0
        for (ax, ay, ar), (bx, by, br) in zip(self.points, self.points[1:], strict=False):
            ux, uy = bx - ax, by - ay
            whole = math.hypot(ux, uy) + 1e-6
            px, py = x - ax, y - ay
            h = np.clip(px * (ux / whole**2) + py * (uy / whole**2), 0, 1)
            d = vector_length(px - h * ux, py - h * uy) - h * (br - ar) - ar
            here = walked + h * whole
            along = here if best is None else np.where(d < best, here, along)
            best = d if best is None else np.minimum(best, d)
            walked += whole
        return best, along


@dataclass(frozen=True)
class Box:
    """A rectangle with rounded corners: centre, half sides, corner radius, angle."""

    x: float
    y: float
    hx: float
    hy: float
    corner: float = 0.0
    angle: float = 0.0

    def bounds(self) -> tuple[float, float, float, float]:
        r = math.hypot(self.hx, self.hy) if self.angle else 0
        rx, ry = max(self.hx, r), max(self.hy, r)
        return self.x - rx, self.y - ry, self.x + rx, self.y + ry

    def distance(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        c, s = math.cos(self.angle), math.sin(self.angle)
        px, py = (x - self.x) * c + (y - self.y) * s, (y - self.y) * c - (x - self.x) * s
        qx, qy = np.abs(px) - self.hx + self.corner, np.abs(py) - self.hy + self.corner
        outside = vector_length(np.maximum(qx, 0), np.maximum(qy, 0))
        return outside + np.minimum(np.maximum(qx, qy), 0) - self.corner, px


Shape = Blob | Limb | Box


def curve(points: Sequence[tuple[float, float]], start: float, end: float, steps: int = 8) -> Limb:
    """A smooth tapering limb along a quadratic or cubic Bézier curve, its radius going from `start` to `end`."""
    n = len(points) - 1
    path = []
    for k in range(steps):
        t = k / (steps - 1)
        weights = [math.comb(n, i) * (1 - t) ** (n - i) * t**i for i in range(n + 1)]
        x, y = (float(sum(w * p[axis] for w, p in zip(weights, points, strict=True))) for axis in (0, 1))
        path.append((x, y, start + (end - start) * t))
    return Limb(tuple(path))


@dataclass(frozen=True)
class Frame:
    """Where a drawing's own coordinates lie in the picture: origin (px), px a unit, mirrored or not, turned (radians)."""

    x: float
    y: float
    scale: float
    flip: float = 1.0
    turn: float = 0.0

    def local(self, px: np.ndarray, py: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        c, s = math.cos(self.turn) / self.scale, math.sin(self.turn) / self.scale
        dx, dy = (px - self.x) * self.flip, py - self.y
        return dx * c + dy * s, dy * c - dx * s

    def pixels(self, x: float, y: float) -> tuple[float, float]:
        c, s = math.cos(self.turn) * self.scale, math.sin(self.turn) * self.scale
        return self.x + self.flip * (x * c - y * s), self.y + x * s + y * c

    def at(self, x: float, y: float, scale: float = 1.0, turn: float = 0.0) -> "Frame":
        """A frame within this one, its origin at (x, y)."""
        return Frame(*self.pixels(x, y), self.scale * scale, self.flip, self.turn + turn)
