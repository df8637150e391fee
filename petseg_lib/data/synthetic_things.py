"""Things among the synthetic pets: a scene to paint on, and cushions, balls, logs and rocks in the pets' own coats.

Coordinates of a scene: the picture's height is 1, x runs from 0 to `wide`, y points down.
"""

from collections.abc import Sequence

import numpy as np

from petseg_lib.data.synthetic_coat import COATS, Coat, coat_paint
from petseg_lib.data.synthetic_paint import Colour, Paint, Painter, rgb
from petseg_lib.data.synthetic_shapes import Blob, Box, Frame, Limb, Shape


class Scene:
    """A background being painted: the painter, its rng, and the frame of the whole picture."""

    def __init__(self, painter: Painter, ground: float, coat: Coat):
        self.painter, self.rng, self.ground, self.coat = painter, painter.rng, ground, coat
        self.frame = Frame(0, 0, painter.height)
        self.wide = painter.width / painter.height
        self.x, self.y = painter.columns / painter.height, painter.rows / painter.height
        self.markings = painter.noise(6), painter.noise(16, 1)

    def pick(self, choices: Sequence[Colour]) -> np.ndarray:
        """One of the colours, a little off, as (3, 1, 1)."""
        return rgb(choices[self.rng.integers(len(choices))]) * rgb(self.rng.uniform(0.94, 1.06, 3))

    def flat(self, paint: Paint, *shapes: Shape, **options) -> None:
        """Paint shapes in the coordinates of the scene; options as in `Painter.part`."""
        self.painter.part(self.frame, shapes, paint, **options)

    def blend(self, colour: Colour, share: np.ndarray) -> None:
        """Lay a colour over the whole picture, as densely as `share` (H, W) says."""
        self.painter.image += (rgb(colour) - self.painter.image) * np.clip(share, 0, 1)

    def below(self, y: float, soft: float = 0.004, wobble: np.ndarray | float = 0.0) -> np.ndarray:
        """1 below a height and 0 above it, (H, W)."""
        return np.clip(0.5 + (self.y + wobble - y) / soft, 0, 1)


def paint_distractors(scene: Scene, indoors: bool) -> None:
    """Things in the fur and the colours of pets, behind the pet: they make colour and texture ambiguous."""
    rng = scene.rng
    for _ in range(rng.integers(2, 5)):
        x, y, r = scene.wide * rng.uniform(0, 1), scene.ground + rng.uniform(-0.1, 0.0), rng.uniform(0.06, 0.14)
        kind = rng.integers(3)
        if kind == 0 and indoors:
            cushion(scene, x, y, r)
        elif kind == 0:
            _furry(scene, x, y, r, Blob(0, -0.8, 1, 0.62, float(rng.normal(0, 0.2))), "body")
        elif kind == 1:
            _furry(scene, x, y, r, Blob(0, -0.75, 0.55, 0.55), "body")
        else:
            log = Limb(((-1.4, -0.6, 0.42), (0, -0.65, 0.46), (1.4, -0.6, 0.4)))
            _furry(scene, x, y, r, log, "leg" if indoors else "body")


def cushion(scene: Scene, x: float, y: float, r: float) -> None:
    """A plush cushion of radius `r`, standing at (x, y)."""
    _furry(scene, x, y, r, Box(0, -1, 1, 0.8, 0.45, float(scene.rng.normal(0, 0.25))), "body")


def _furry(scene: Scene, x: float, y: float, r: float, shape: Shape, tag: str) -> None:
    """A shape (in units of `r`, its foot at y -0.2) in the coat of this pet or of another, with its shadow."""
    rng = scene.rng
    coat = scene.coat if rng.random() < 0.6 else COATS[rng.integers(len(COATS))]
    frame = scene.frame.at(x, y + 0.2 * r, r)
    left, _, right, _ = shape.bounds()
    scene.painter.part(frame, [Blob(0, -0.2, (right - left) * 0.55, 0.25)], (0.08, 0.06, 0.1), opacity=0.35, soft=9)
    paint = coat_paint(coat, tag, scene.markings, 0.0)
    scene.painter.part(frame, [shape], paint, fur=coat.fur * 0.9, flow=rng.uniform(0, 3), length=1.6, round_=0.5)
