"""Coats of the synthetic pets: the breeds, and the colour of each part of a body."""

from dataclasses import dataclass

import numpy as np

from petseg_lib.data.synthetic_paint import Colour, Paint, Spot, rgb


@dataclass(frozen=True)
class Coat:
    """A breed's looks: colours as RGB 0..1, hair length, ears, and radius of the tail and the head in body units."""

    breed: str
    species: str
    pattern: str
    base: Colour
    second: Colour
    pale: Colour
    eyes: Colour
    nose: Colour
    fur: float
    ears: str
    tail: float = 0.24
    head: float = 1.0


COATS = (
    Coat("Cream_Point", "cat", "point", (0.93, 0.86, 0.76), (0.40, 0.29, 0.25), (0.97, 0.93, 0.86), (0.42, 0.66, 0.88), (0.35, 0.24, 0.22), 2.0, "pointed"),
    Coat("Ginger_Tabby", "cat", "tabby", (0.90, 0.60, 0.30), (0.70, 0.38, 0.15), (0.98, 0.91, 0.80), (0.62, 0.72, 0.30), (0.86, 0.50, 0.46), 2.0, "pointed"),
    Coat("Smoke_Grey", "cat", "tabby", (0.58, 0.60, 0.64), (0.40, 0.42, 0.47), (0.84, 0.85, 0.87), (0.88, 0.66, 0.24), (0.48, 0.38, 0.40), 2.8, "pointed", 0.3),
    Coat("Tuxedo", "cat", "tuxedo", (0.20, 0.20, 0.23), (0.13, 0.13, 0.16), (0.95, 0.94, 0.92), (0.70, 0.78, 0.32), (0.80, 0.52, 0.52), 2.0, "pointed"),
    Coat("black_terrier", "dog", "smoke", (0.25, 0.24, 0.26), (0.17, 0.16, 0.18), (0.45, 0.42, 0.40), (0.30, 0.18, 0.10), (0.10, 0.10, 0.11), 4.2, "folded", 0.18, 1.02),
    Coat("golden_puppy", "dog", "smoke", (0.88, 0.68, 0.40), (0.72, 0.50, 0.26), (0.97, 0.88, 0.70), (0.28, 0.17, 0.09), (0.16, 0.12, 0.12), 3.4, "floppy", 0.26),
    Coat("sable_shepherd", "dog", "saddle", (0.74, 0.53, 0.33), (0.25, 0.21, 0.20), (0.93, 0.83, 0.68), (0.34, 0.20, 0.10), (0.12, 0.11, 0.12), 3.2, "pricked", 0.28),
    Coat("spotted_hound", "dog", "spotted", (0.93, 0.90, 0.85), (0.42, 0.29, 0.21), (0.98, 0.96, 0.92), (0.30, 0.18, 0.10), (0.20, 0.15, 0.15), 1.6, "floppy", 0.17),
)  # fmt: skip


def _step(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """A smooth step from 0 at `low` to 1 at `high`."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def coat_paint(coat: Coat, tag: str, markings: tuple[np.ndarray, np.ndarray], dim: float) -> Paint:
    """The colours of a part.

    Args:
        coat: the breed.
        tag: which part: body, leg, paw, tail, head, ear, muzzle, chest.
        markings: coarse and fine noise over the picture, which bends the pattern.
        dim: how much darker it is, 0..1.
    """

    def paint(spot: Spot) -> np.ndarray:
        coarse, fine = (noise[spot.rows, spot.columns] for noise in markings)
        share = np.clip(_second(coat.pattern, tag, spot, coarse, fine), 0, 1)
        pale = np.clip(_pale(coat.pattern, tag, spot, coarse), 0, 1)
        tone = (1 - dim) * (1 + 0.06 * coarse + 0.04 * fine)
        base, second, whitish = rgb(coat.base), rgb(coat.second), rgb(coat.pale)
        colour = base + share * (second - base)
        return (colour + pale * (whitish - colour)) * tone

    return paint


def _second(pattern: str, tag: str, spot: Spot, coarse: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """Share of the second colour, 0..1 where it counts."""
    x, y = spot.x, spot.y
    if pattern == "tabby":
        if tag == "head":
            brow = _step(-y, 0.25, 0.55) * _step(np.cos(13 * x * (1 + 0.15 * y) + 0.3 * fine), 0.2, 0.7)
            cheek = _step(np.abs(x), 0.62, 0.85) * _step(np.sin(14 * y + 4 * np.abs(x)), 0.2, 0.7)
            return 0.8 * np.maximum(brow, cheek)
        wave = np.sin(9.5 * spot.along if tag in ("leg", "tail") else 6.5 * x + 1.2 * y + 1.6 * coarse)
        return (0.0 if tag in ("paw", "muzzle", "chest") else 0.75) * _step(wave + 0.25 * fine, 0.1, 0.6)
    if pattern == "point":
        if tag == "head":
            return 0.95 * np.exp(-(((x / 0.62) ** 2 + ((y - 0.3) / 0.62) ** 2) ** 1.4))
        if tag == "leg":
            return _step(spot.along, 0.5, 1.4) * 0.9
        return np.full_like(x, {"ear": 0.95, "tail": 0.9, "paw": 0.95, "muzzle": 0.85}.get(tag, 0.0)) + 0.08 * coarse
    if pattern == "spotted":
        if tag == "ear":
            return np.ones_like(x)
        if tag == "head":
            return _step(np.hypot(x - 0.55, y + 0.25) * -1 + 0.1 * coarse, -0.62, -0.5)
        return 0.0 * x if tag in ("muzzle", "chest") else np.maximum(_step(coarse, 0.35, 0.45), _step(fine, 0.5, 0.6))
    if pattern == "saddle":
        if tag == "body":
            top, low = float(y.min()), float(y.max())
            return _step((low - y) / (low - top) + 0.15 * coarse, 0.5, 0.68)
        if tag == "head":
            return 0.75 * np.maximum(_step(-y, 0.4, 0.8), _step(y, 0.0, 0.5) * _step(-np.abs(x), -0.5, -0.3))
        return np.full_like(x, {"ear": 0.75, "tail": 0.6, "muzzle": 0.75}.get(tag, 0.0)) + 0.1 * coarse
    return 0.3 * _step(coarse, -0.2, 0.8) + (0.35 if tag == "ear" else 0.0)


def _pale(pattern: str, tag: str, spot: Spot, coarse: np.ndarray) -> np.ndarray:
    """Share of the pale colour, 0..1 where it counts."""
    x, y = spot.x, spot.y
    if tag in ("chest", "muzzle"):
        strength = {"tuxedo": 1.0, "tabby": 0.85, "spotted": 1.0, "smoke": 0.6 if tag == "chest" else 0.45}
        return np.full_like(x, strength.get(pattern, 0.7 if tag == "chest" else 0.0))
    if tag == "paw":
        return np.full_like(x, {"tuxedo": 1.0, "tabby": 0.55, "saddle": 0.2, "smoke": 0.2}.get(pattern, 0.0))
    if pattern == "tuxedo":
        if tag == "head":
            return _step(0.10 + 0.42 * _step(y, -0.3, 0.7) - np.abs(x + 0.05 * coarse), 0, 0.08) * _step(y, -0.7, -0.4)
        return _step(spot.along, 0.85, 1.0) if tag == "leg" else 0.0 * x
    return 0.0 * x
