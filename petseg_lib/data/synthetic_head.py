"""Heads of the synthetic pets: ears, eyes, muzzle, nose, whiskers. One unit is the head's radius; y points down."""

import math

import numpy as np

from petseg_lib.data.synthetic_coat import Coat, coat_paint
from petseg_lib.data.synthetic_paint import Paint, Painter, rgb
from petseg_lib.data.synthetic_shapes import Blob, Frame, Limb, Shape, curve

DARK = (0.10, 0.08, 0.09)
INNER_EAR = (0.87, 0.62, 0.58)


class Head:
    """A head being drawn. `look` (-1..1) turns the face to the side: its features slide, the far ones a little less."""

    def __init__(self, painter: Painter, frame: Frame, coat: Coat, markings: tuple[np.ndarray, np.ndarray], look: float):
        self.painter, self.frame, self.coat, self.markings = painter, frame, coat, markings
        self.shift = 0.22 * look

    def fur(self, tag: str, *shapes: Shape, flow: float | None = None, blend: float = 0.25, length: float = 0.6,
            round_: float = 0.45, occlude: float = 0.35) -> None:  # fmt: skip
        paint = coat_paint(self.coat, tag, self.markings, 0.0)
        fur = length * (self.coat.fur * self.frame.scale / 45 + 0.6)
        self.painter.part(self.frame, shapes, paint, blend=blend, fur=fur, flow=flow, length=1.5, round_=round_,
                          occlude=occlude, pet=True)  # fmt: skip

    def flat(self, colour: Paint, *shapes: Shape, opacity: float = 1.0, soft: float = 1.2, round_: float = 0.0) -> None:
        self.painter.part(self.frame, shapes, colour, opacity=opacity, soft=soft, round_=round_)

    def eye(self, side: int, x: float, y: float, r: float, asleep: bool) -> None:
        x = side * x + self.shift
        if asleep:
            arc = curve(((x - r, y), (x, y + 0.9 * r), (x + r, y)), 0.035, 0.035, 7)
            self.flat(DARK, arc, opacity=0.85)
            return
        cat = self.coat.species == "cat"
        self.flat(DARK, Blob(x, y, r * 1.2, r * (1.08 if cat else 1.15), side * -0.25), soft=2)
        iris = rgb(self.coat.eyes)
        self.flat(lambda s: iris * (0.75 + 0.5 * np.clip((s.y - y) / r + 0.4, 0, 1)), Blob(x, y, r, r * 0.92, side * -0.25))
        pupil = (0.42, 0.78) if cat else (0.62, 0.62)
        self.flat(DARK, Blob(x + self.shift * 0.15, y, r * pupil[0], r * pupil[1]))
        self.flat((0, 0, 0), Blob(x, y - r * 0.95, r * 1.1, r * 0.45, side * 0.2), opacity=0.25, soft=3)
        self.flat((1, 1, 1), Blob(x - 0.32 * r, y - 0.35 * r, r * 0.27, r * 0.27))
        self.flat((1, 1, 1), Blob(x + 0.35 * r, y + 0.4 * r, r * 0.13, r * 0.13), opacity=0.6)

    def mouth(self, x: float, y: float, width: float, drop: float) -> None:
        self.flat(DARK, Limb(((x, y, 0.022), (x, y + drop, 0.022))), opacity=0.6)
        for side in (-1, 1):
            points = ((x, y + drop), (x + side * width * 0.5, y + drop + 0.17), (x + side * width, y + drop + 0.02))
            self.flat(DARK, curve(points, 0.024, 0.014, 6), opacity=0.6)


def draw_head(painter: Painter, frame: Frame, coat: Coat, markings: tuple[np.ndarray, np.ndarray], look: float, *,
              asleep: bool, rng: np.random.Generator) -> None:  # fmt: skip
    """Paint a head around the frame's origin, looking at us or (`look`, -1..1) a little past us."""
    head = Head(painter, frame, coat, markings, look)
    if coat.species == "cat":
        _cat(head, asleep)
    else:
        _dog(head, asleep, panting=not asleep and rng.random() < 0.4)


def _pointed_ear(head: Head, side: int, lean: float, height: float, width: float) -> None:
    x = side * 0.55 - head.shift * 0.4
    tip = (x + side * lean, -0.5 - height)
    head.fur("ear", Limb(((x, -0.48, width), (tip[0], tip[1], 0.05))), flow=-math.pi / 2, length=0.4)
    inner = Limb(((x + side * 0.03, -0.5, width * 0.6), (tip[0] - side * 0.02, tip[1] + 0.22, 0.03)))
    head.painter.part(head.frame, [inner], INNER_EAR, opacity=0.8, soft=3, fur=1.5, flow=-math.pi / 2, round_=0.2)


def _cat(head: Head, asleep: bool) -> None:
    for side in (-1, 1):
        _pointed_ear(head, side, 0.24, 0.74, 0.38)
    head.fur("head", Blob(0, -0.02, 0.98, 0.84), Blob(-0.52, 0.3, 0.5, 0.42), Blob(0.52, 0.3, 0.5, 0.42))
    s = head.shift
    for side in (-1, 1):
        head.eye(side, 0.41, -0.06, 0.2, asleep)
    head.fur("muzzle", Blob(s * 1.4, 0.6, 0.2, 0.15), length=0.2, occlude=0)
    head.fur(
        "muzzle",
        Blob(s * 1.4 - 0.19, 0.43, 0.26, 0.2),
        Blob(s * 1.4 + 0.19, 0.43, 0.26, 0.2),
        blend=0.08,
        length=0.2,
        occlude=0.1,
        round_=0.3,
    )
    head.mouth(s * 1.5, 0.34, 0.26, 0.12)
    head.flat(
        head.coat.nose,
        Limb(((s * 1.5 - 0.06, 0.25, 0.06), (s * 1.5 + 0.06, 0.25, 0.06))),
        Blob(s * 1.5, 0.31, 0.06, 0.06),
        round_=0.4,
    )
    for side in (-1, 1):
        for k in (-1, 0, 1):
            x, y = s * 1.4 + side * 0.3, 0.42 + 0.06 * k
            line = curve(((x, y), (x + side * 0.5, y - 0.06 + 0.12 * k), (x + side * 0.98, y + 0.02 + 0.22 * k)), 0.016, 0.004, 7)
            head.flat((0.98, 0.97, 0.94), line, opacity=0.75)


def _hanging_ear(head: Head, side: int) -> None:
    """A terrier's folded ear or a hound's long one, in front of the head; pricked ears lie behind it."""
    if head.coat.ears == "folded":
        x = side * 0.6 - head.shift * 0.4
        ear = Limb(((x, -0.68, 0.26), (x + side * 0.22, -0.92, 0.2), (x + side * 0.42, -0.5, 0.08)))
    elif head.coat.ears == "floppy":
        x = side * 0.72 - head.shift * 0.4
        ear = Limb(((x - side * 0.05, -0.5, 0.2), (x + side * 0.2, -0.1, 0.26), (x + side * 0.2, 0.45, 0.27)))
    else:
        return
    head.fur("ear", ear, flow=math.pi / 2)


def _dog(head: Head, asleep: bool, panting: bool) -> None:
    if head.coat.ears == "pricked":
        for side in (-1, 1):
            _pointed_ear(head, side, 0.14, 0.85, 0.34)
    s = head.shift
    head.fur("head", Blob(0, -0.12, 0.84, 0.78), Blob(s * 0.8, 0.3, 0.62, 0.5))
    for side in (-1, 1):
        _hanging_ear(head, side)
    for side in (-1, 1):
        head.eye(side, 0.36, -0.16, 0.145, asleep)
    if panting:
        head.flat((0.35, 0.12, 0.13), Blob(s * 1.7, 0.68, 0.2, 0.16))
        head.flat((0.88, 0.45, 0.47), Limb(((s * 1.7, 0.68, 0.12), (s * 1.7, 0.86, 0.14))), round_=0.4)
    head.fur(
        "muzzle",
        Blob(s * 1.6, 0.36, 0.4, 0.3),
        Blob(s * 1.6 - 0.2, 0.46, 0.26, 0.22),
        Blob(s * 1.6 + 0.2, 0.46, 0.26, 0.22),
        blend=0.12,
        length=0.3,
        occlude=0.15,
        round_=0.4,
    )
    head.mouth(s * 1.8, 0.3, 0.3, 0.2)
    head.flat(head.coat.nose, Blob(s * 1.8, 0.18, 0.2, 0.14), Blob(s * 1.8, 0.25, 0.12, 0.1), round_=0.5)
    head.flat((1, 1, 1), Blob(s * 1.8 - 0.05, 0.12, 0.08, 0.035), opacity=0.5, soft=2)
