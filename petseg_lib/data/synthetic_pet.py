"""The synthetic pets themselves: poses and bodies. One unit is about the radius of the head; y points down."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from petseg_lib.data.synthetic_coat import Coat, coat_paint
from petseg_lib.data.synthetic_head import draw_head
from petseg_lib.data.synthetic_paint import Painter
from petseg_lib.data.synthetic_shapes import Blob, Frame, Limb, Shape, curve


@dataclass
class Body:
    """One pet being drawn: where, in which coat, by which painter."""

    painter: Painter
    frame: Frame
    coat: Coat
    rng: np.random.Generator
    markings: tuple[np.ndarray, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        cells = max(self.painter.height, self.painter.width) / self.frame.scale
        self.markings = self.painter.noise(cells * 0.55), self.painter.noise(cells * 1.6, 1)

    def draw(self, tag: str, *shapes: Shape, flow: float | None = 0.0, dim: float = 0.0) -> None:
        """Paint one furry part; `dim` darkens what lies on the far side."""
        self.painter.part(
            self.frame, shapes, coat_paint(self.coat, tag, self.markings, dim), blend=0.3, flow=flow, pet=True,
            fur=(self.coat.fur * self.frame.scale / 45 + 0.8) * (0.6 if tag == "tail" else 1.0), length=1.6, round_=0.5, occlude=0.3,
        )  # fmt: skip

    def bib(self, *shapes: Shape, flow: float = math.pi / 2) -> None:
        """A pale patch with a soft outline on a part that is already there."""
        paint = coat_paint(self.coat, "chest", self.markings, 0.0)
        soft = 0.35 * self.frame.scale
        self.painter.part(self.frame, shapes, paint, blend=0.3, flow=flow, fur=self.coat.fur + 3, soft=soft, round_=0.15)

    def paw(self, x: float, y: float = -0.16, rx: float = 0.33, dim: float = 0.0) -> None:
        """A paw on the ground, with two lines between the toes."""
        self.draw("paw", Blob(x, y, rx, 0.2), dim=dim, flow=0.0)
        for toe in (-0.3, 0.3):
            line = Limb(((x + toe * rx, y + 0.02, 0.018), (x + toe * rx * 1.1, y + 0.14, 0.012)))
            self.painter.part(self.frame, [line], np.multiply(self.coat.second, 0.35), opacity=0.55)

    def tail(self, *points: tuple[float, float]) -> None:
        thick = self.coat.tail
        flow = math.atan2(points[-1][1] - points[0][1], points[-1][0] - points[0][0])
        self.draw("tail", curve(points, thick, thick * (0.62 if self.coat.species == "cat" else 0.4), 9), flow=flow)


def sitting(body: Body) -> Frame:
    """Sitting, seen from the front."""
    side = int(body.rng.choice((-1, 1)))
    reach = body.rng.uniform(1.7, 2.3)
    if body.coat.species == "cat":
        body.tail((side * 0.7, -0.3), (side * reach, 0.0), (side * (reach + 0.3), -0.9), (side * reach * 0.85, -1.7))
    else:
        body.tail((side * 0.7, -0.4), (side * 1.5, -0.35), (side * (reach - 0.2), -1.3))
    body.draw("body", Blob(-0.82, -0.6, 0.6, 0.62), Blob(0.82, -0.6, 0.6, 0.62), Limb(((0, -0.95, 0.92), (0, -2.3, 0.66))),
              flow=math.pi / 2)  # fmt: skip
    for x in (-0.98, 0.98):
        body.paw(x, -0.15, 0.38)
    body.bib(Limb(((0, -2.3, 0.3), (0, -1.5, 0.28))))
    for x in (-0.36, 0.36):
        body.draw("leg", Limb(((x * 1.05, -1.65, 0.27), (x, -0.9, 0.25), (x, -0.25, 0.22))), flow=math.pi / 2)
        body.paw(x, -0.16, 0.29)
    return body.frame.at(0, -3.0)


def sitting_side(body: Body) -> Frame:
    """Sitting, turned to the side."""
    lift = body.rng.uniform(0.0, 1.4)
    body.tail((-1.0, -0.45), (-2.0, -0.2), (-2.5, -0.3 - lift), (-2.2, -0.8 - lift))
    body.draw("leg", Limb(((0.75, -1.6, 0.32), (0.85, -0.3, 0.2))), flow=math.pi / 2, dim=0.25)
    body.paw(0.98, -0.17, 0.3, dim=0.25)
    body.draw("body", Limb(((-0.55, -0.85, 0.85), (0.1, -1.6, 0.78), (0.42, -2.3, 0.55))), Blob(0.45, -1.55, 0.55, 0.62),
              flow=2.0)  # fmt: skip
    body.bib(Limb(((0.65, -2.1, 0.22), (0.75, -1.5, 0.18))))
    body.draw("body", Blob(-0.5, -0.72, 0.68, 0.62), flow=1.4)
    body.paw(0.02, -0.15, 0.44)
    body.draw("leg", Limb(((0.45, -1.55, 0.3), (0.5, -0.8, 0.25), (0.48, -0.25, 0.21))), flow=math.pi / 2)
    body.paw(0.58, -0.15, 0.31)
    return body.frame.at(0.5, -2.95)


def standing(body: Body) -> Frame:
    """Standing on four legs, seen from the side."""
    tall = 0.0 if body.coat.species == "cat" else 0.35
    stride = body.rng.uniform(-0.3, 0.3)
    raise_ = body.rng.uniform(0.2, 1.6)
    far = [((-1.15, -1.5 - tall, 0.42), (-1.05 - stride, -0.85, 0.24), (-1.0 + stride, -0.22, 0.18)),
           ((1.0, -1.6 - tall, 0.36), (1.05 - stride, -0.9, 0.23), (1.0 - stride, -0.22, 0.18))]  # fmt: skip
    for leg in far:
        body.draw("leg", Limb(leg), flow=math.pi / 2, dim=0.3)
        body.paw(leg[2][0] + 0.1, -0.15, 0.27, dim=0.3)
    body.tail((-1.75, -2.1 - tall), (-2.5, -2.1 - tall), (-2.5, -2.3 - tall - raise_), (-2.9, -2.6 - tall - raise_))
    body.draw("body", Limb(((-1.35, -1.85 - tall, 0.66), (0, -1.78 - tall, 0.66), (1.15, -1.9 - tall, 0.68))),
              Limb(((1.25, -2.1 - tall, 0.55), (1.75, -2.75 - tall, 0.45))), flow=math.pi + 0.25)  # fmt: skip
    body.bib(Limb(((1.6, -2.0 - tall, 0.15), (1.1, -1.5 - tall, 0.12))), flow=2.4)
    near = [((-1.4, -1.6 - tall, 0.55), (-1.5 + stride, -0.9, 0.26), (-1.45 + stride, -0.22, 0.2)),
            ((1.15, -1.6 - tall, 0.38), (1.2 + stride, -0.9, 0.25), (1.2 + stride, -0.22, 0.2))]  # fmt: skip
    for leg in near:
        body.draw("leg", Limb(leg), flow=math.pi / 2)
        body.paw(leg[2][0] + 0.1, -0.15, 0.3)
    return body.frame.at(1.95, -2.95 - tall)


def lying(body: Body) -> Frame:
    """Lying like a sphinx, seen from the side."""
    body.tail((-1.9, -0.4), (-2.9, -0.1), (-2.9, -0.5), (-3.3, -body.rng.uniform(0.4, 1.3)))
    body.draw("leg", Limb(((1.0, -0.7, 0.34), (2.2, -0.24, 0.21))), dim=0.25)
    body.paw(2.35, -0.2, 0.32, dim=0.25)
    body.draw("body", Limb(((-1.25, -0.86, 0.82), (0, -0.85, 0.76), (0.85, -1.05, 0.74))),
              Limb(((0.95, -1.1, 0.65), (1.15, -1.7, 0.5))), flow=math.pi + 0.2)  # fmt: skip
    body.bib(Blob(1.3, -1.0, 0.3, 0.5))
    body.draw("body", Blob(-1.2, -0.68, 0.78, 0.64, 0.1), flow=2.6)
    body.paw(-0.55, -0.16, 0.46)
    body.draw("leg", Limb(((0.8, -0.6, 0.36), (1.85, -0.2, 0.22))))
    body.paw(2.0, -0.17, 0.34)
    return body.frame.at(1.2, -2.1)


def curled(body: Body) -> Frame:
    """Curled up and asleep."""
    body.draw("body", Blob(-0.1, -1.1, 1.95, 1.08), Blob(-0.7, -1.25, 1.2, 1.0), flow=math.pi + 0.6)
    body.draw("body", Blob(-1.05, -0.85, 0.85, 0.78), flow=2.4)
    body.bib(Blob(0.7, -0.6, 0.4, 0.22))
    body.draw("leg", Limb(((0.1, -0.3, 0.22), (0.75, -0.2, 0.19))))
    body.paw(0.9, -0.17, 0.3)
    body.tail((-1.65, -0.45), (-1.8, 0.05), (-0.7, -0.1), (0.2, -0.22))
    return body.frame.at(1.15, -0.98, 0.98, 0.22)


def portrait(body: Body) -> Frame:
    """Head and shoulders."""
    body.draw("body", Limb(((0, 0.6, 0.75), (0, 1.7, 1.2), (0, 3.4, 1.6))), flow=math.pi / 2)
    body.bib(Limb(((0, 1.0, 0.4), (0, 2.8, 0.5))))
    return body.frame.at(0, 0)


@dataclass(frozen=True)
class Pose:
    """A way to sit: how it is drawn, and the box (units) that it fills."""

    draw: Callable[[Body], Frame]
    left: float
    top: float
    right: float
    bottom: float


POSES = (
    Pose(sitting, -1.6, -4.2, 1.6, 0.1),
    Pose(sitting_side, -2.1, -4.2, 1.6, 0.1),
    Pose(standing, -2.5, -4.2, 2.9, 0.1),
    Pose(lying, -2.8, -3.3, 2.6, 0.1),
    Pose(curled, -2.1, -2.3, 2.2, 0.1),
    Pose(portrait, -1.35, -1.4, 1.35, 2.2),
)


def draw_pet(painter: Painter, frame: Frame, coat: Coat, pose: Pose, rng: np.random.Generator) -> None:
    """Paint a pet in a pose, its feet at the frame's origin, and mark it in `painter.pet`."""
    body = Body(painter, frame, coat, rng)
    head = pose.draw(body)
    tilt = float(rng.normal(0, 0.12))
    look = float(np.clip(rng.normal(0.15, 0.4), -0.8, 0.8))
    draw_head(painter, head.at(0, 0, coat.head, tilt), coat, body.markings, look, asleep=pose.draw is curled, rng=rng)
