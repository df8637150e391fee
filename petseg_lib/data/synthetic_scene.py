"""Where the synthetic pets are: rooms and gardens.

Coordinates of a scene: the picture's height is 1, x runs from 0 to `wide`, y points down.
"""

import math

import numpy as np

from petseg_lib.data.synthetic_paint import rgb
from petseg_lib.data.synthetic_shapes import Blob, Box, Limb, curve
from petseg_lib.data.synthetic_things import Scene, cushion

WALLS = (
    (0.86, 0.79, 0.68),
    (0.74, 0.78, 0.72),
    (0.80, 0.70, 0.62),
    (0.66, 0.70, 0.76),
    (0.90, 0.84, 0.76),
    (0.78, 0.62, 0.52),
    (0.55, 0.52, 0.52),
)
FLOORS = ((0.66, 0.47, 0.31), (0.76, 0.60, 0.42), (0.48, 0.35, 0.27), (0.70, 0.66, 0.62), (0.82, 0.72, 0.58))
CLOTHS = (
    (0.62, 0.30, 0.28),
    (0.34, 0.46, 0.50),
    (0.80, 0.66, 0.42),
    (0.52, 0.50, 0.58),
    (0.86, 0.80, 0.72),
    (0.40, 0.32, 0.30),
    (0.56, 0.58, 0.42),
)
SKIES = (
    ((0.55, 0.74, 0.88), (0.90, 0.93, 0.90)),
    ((0.93, 0.74, 0.58), (0.98, 0.90, 0.74)),
    ((0.70, 0.76, 0.82), (0.88, 0.88, 0.86)),
)
GREENS = ((0.45, 0.58, 0.30), (0.56, 0.62, 0.34), (0.36, 0.50, 0.32), (0.66, 0.64, 0.38))
EARTHS = ((0.86, 0.74, 0.54), (0.68, 0.54, 0.38), (0.80, 0.66, 0.50))


def paint_room(scene: Scene) -> None:
    """Wall and floor, and some of: window, picture, lamp, sofa, shelf, plant, rug."""
    rng, ground, wide = scene.rng, scene.ground, scene.wide
    horizon = ground - rng.uniform(0.14, 0.34)
    wall = scene.pick(WALLS)
    scene.painter.image[:] = wall * (1.06 - 0.22 * scene.y)
    _wallpaper(scene, wall)
    for thing, chance in ((_window, 0.45), (_pictures, 0.5)):
        if rng.random() < chance:
            thing(scene, horizon)
    _floor(scene, horizon)
    for thing, chance in ((_sofa, 0.45), (_lamp, 0.4), (_plant, 0.45)):
        if rng.random() < chance:
            thing(scene, horizon)
    if rng.random() < 0.6:
        colour = scene.pick((*CLOTHS, scene.coat.base))
        rug = Blob(wide * rng.uniform(0.35, 0.65), ground - 0.01, rng.uniform(0.45, 0.65) * wide, rng.uniform(0.12, 0.2))
        scene.flat(colour * 0.8, rug, fur=3.0, flow=1.2, round_=0.1)
        scene.flat(colour * 1.1, Blob(rug.x, rug.y, rug.rx * 0.88, rug.ry * 0.84), fur=3.0, flow=1.2)


def _wallpaper(scene: Scene, wall: np.ndarray) -> None:
    kind, step = scene.rng.integers(4), scene.rng.uniform(0.06, 0.12)
    if kind == 0:
        scene.blend(wall * 0.9, 0.8 * (np.sin(scene.x * 2 * math.pi / step) > 0.2))
    elif kind == 1:
        u, v = (scene.x + (np.floor(scene.y / step) % 2) * step / 2) % step - step / 2, scene.y % step - step / 2
        scene.blend(wall * 1.12, 0.7 * np.clip(1.5 - (np.hypot(u, v) - step * 0.16) * 200, 0, 1))
    elif kind == 2:
        scene.blend(wall * 0.85, 0.5 + 0.5 * scene.painter.noise(4))


def _window(scene: Scene, horizon: float) -> None:
    rng = scene.rng
    x, hx, hy = rng.uniform(0.15, 0.85) * scene.wide, rng.uniform(0.13, 0.2), rng.uniform(0.18, 0.25)
    y = max(hy + 0.04, horizon - hy - 0.16)
    top, low = SKIES[rng.integers(len(SKIES))]
    green = scene.pick(GREENS)
    scene.flat((0.96, 0.94, 0.90), Box(x, y, hx + 0.03, hy + 0.03, 0.01), round_=0.2)
    scene.flat(lambda s: rgb(top) + (rgb(low) - rgb(top)) * np.clip((s.y - y + hy) / hy, 0, 1), Box(x, y, hx, hy))
    for k in range(4):
        scene.flat(
            green * rng.uniform(0.85, 1.15),
            Box(x + hx * (k - 1.5) / 2, y + hy * 0.86, hx * 0.25, hy * rng.uniform(0.1, 0.35), 0.03),
            soft=3,
        )
    for bar in (Box(x, y, 0.008, hy), Box(x, y, hx, 0.008)):
        scene.flat((0.95, 0.93, 0.89), bar)
    cloth = scene.pick(CLOTHS)
    for side in (-1, 1):
        scene.flat(
            lambda s: cloth * (1 + 0.12 * np.sin(s.x * 130)),
            Box(x + side * (hx + 0.04), y + 0.03, 0.05, hy + 0.08, 0.02),
            round_=0.3,
        )


def _pictures(scene: Scene, horizon: float) -> None:
    rng = scene.rng
    for _ in range(rng.integers(1, 4)):
        x, y = rng.uniform(0.08, 0.92) * scene.wide, rng.uniform(0.1, max(0.14, horizon - 0.25))
        hx, hy = rng.uniform(0.05, 0.1), rng.uniform(0.06, 0.1)
        scene.flat((0, 0, 0), Box(x + 0.012, y + 0.015, hx, hy, 0.01), opacity=0.2, soft=6)
        scene.flat(scene.pick(FLOORS) * 0.8, Box(x, y, hx, hy, 0.008), round_=0.3)
        scene.flat((0.95, 0.93, 0.88), Box(x, y, hx - 0.014, hy - 0.014))
        scene.flat(scene.pick((*CLOTHS, *GREENS)), Blob(x, y + hy * 0.1, hx * 0.5, hy * 0.5), soft=2)


def _floor(scene: Scene, horizon: float) -> None:
    floor = scene.pick(FLOORS)
    below = scene.below(horizon)
    depth = np.clip((scene.y - horizon) / (1 - horizon), 0, 1)
    scene.blend(floor, below)
    if scene.rng.random() < 0.6:
        plank = ((scene.x - scene.wide / 2) / (0.35 + depth)) * 9 + 20
        tone = np.take(scene.rng.uniform(-1, 1, 64), np.floor(plank).astype(int) % 64)
        line = np.clip(1 - np.abs(plank - np.round(plank)) * 18, 0, 1)
        scene.painter.image *= 1 + below * (0.1 * tone - 0.25 * line)
    else:
        scene.painter.image *= 1 + 0.06 * below * scene.painter.noise(40, 1)
    scene.painter.image *= 1 - 0.22 * below * np.exp(-depth * 14)
    scene.flat((0.93, 0.90, 0.85), Box(scene.wide / 2, horizon - 0.018, scene.wide, 0.02), round_=0.2)


def _sofa(scene: Scene, horizon: float) -> None:
    rng = scene.rng
    cloth = scene.pick((*CLOTHS, scene.coat.base))
    x, half = rng.uniform(0.2, 0.8) * scene.wide, rng.uniform(0.34, 0.5)
    floor = horizon + 0.08
    scene.flat((0.1, 0.08, 0.1), Blob(x, floor, half * 1.1, 0.03), opacity=0.35, soft=12)
    fuzzy = {"fur": 1.2, "flow": 1.4, "round_": 0.45}
    scene.flat(cloth, Box(x, floor - 0.24, half, 0.2, 0.08), **fuzzy)
    for side in (-1, 1):
        scene.flat(cloth * 1.04, Box(x + side * half * 0.48, floor - 0.1, half * 0.48, 0.06, 0.04), **fuzzy)
        scene.flat(cloth * 0.96, Box(x + side * half, floor - 0.13, 0.07, 0.13, 0.06), **fuzzy)
    for side in (-1, 1):
        if rng.random() < 0.7:
            cushion(scene, x + side * half * 0.6, floor - 0.13, 0.09)


def _lamp(scene: Scene, horizon: float) -> None:
    x, y = float(scene.rng.choice((0.08, 0.92))) * scene.wide, scene.rng.uniform(0.14, 0.3)
    scene.flat((0.25, 0.2, 0.18), Limb(((x, y, 0.008), (x, horizon + 0.06, 0.008))))
    glow = np.exp(-((scene.x - x) ** 2 + (scene.y - y) ** 2) / 0.05)
    scene.painter.image += (glow * 0.35) * rgb((1, 0.85, 0.5))
    scene.flat((1.0, 0.93, 0.74), Limb(((x, y - 0.03, 0.05), (x, y + 0.05, 0.085))), round_=0.2)


def _plant(scene: Scene, horizon: float) -> None:
    rng = scene.rng
    x, y = float(rng.choice((0.1, 0.9))) * scene.wide + rng.normal(0, 0.05), horizon + 0.1
    green = scene.pick(GREENS) * 0.85
    for angle in rng.uniform(-1.1, 1.1, 9):
        length = rng.uniform(0.2, 0.36)
        tip = (x + math.sin(angle) * length, y - 0.12 - math.cos(angle) * length * 0.8)
        leaf = curve(((x, y - 0.1), (x + math.sin(angle) * length * 0.3, tip[1] - 0.02), tip), 0.022, 0.006, 6)
        scene.flat(green * rng.uniform(0.8, 1.2), leaf, round_=0.4)
    scene.flat(
        scene.pick(((0.78, 0.45, 0.33), (0.85, 0.82, 0.76), *CLOTHS)), Limb(((x, y - 0.08, 0.07), (x, y, 0.055))), round_=0.5
    )


def paint_garden(scene: Scene) -> None:
    """Sky, hills, trees or fence, and grass, meadow or sand."""
    rng, ground = scene.rng, scene.ground
    horizon = ground - rng.uniform(0.2, 0.42)
    top, low = SKIES[rng.integers(len(SKIES))]
    share = np.clip(scene.y / max(horizon, 0.1), 0, 1)
    scene.painter.image[:] = rgb(top) * (1 - share) + rgb(low) * share
    scene.blend((1, 1, 0.98), np.clip(scene.painter.noise(5, 3) * 1.3 - 0.2, 0, 0.7) * (1 - 0.6 * share))
    sandy = rng.random() < 0.3
    for k in range(3):
        hill = scene.painter.noise(2.5, 1) * 0.06
        green = scene.pick(GREENS) * 0.5 + rgb(low) * (0.5 - 0.12 * k)
        scene.blend(green, scene.below(horizon - 0.1 + 0.05 * k, 0.006, hill))
    for _ in range(rng.integers(1, 5)):
        _tree(scene, horizon)
    earth = scene.pick(EARTHS if sandy else GREENS)
    scene.blend(earth, scene.below(horizon, 0.01, scene.painter.noise(5) * 0.015))
    if rng.random() < 0.45:
        _fence(scene, horizon)
    _grass(scene, horizon, earth, sandy)


def _tree(scene: Scene, horizon: float) -> None:
    rng = scene.rng
    x, y, r = rng.uniform(0, 1) * scene.wide, horizon - rng.uniform(0.15, 0.3), rng.uniform(0.1, 0.18)
    green = scene.pick((*GREENS, (0.78, 0.52, 0.26), (0.62, 0.42, 0.28)))
    scene.flat(scene.pick(FLOORS) * 0.7, Limb(((x, y, 0.02), (x, horizon + 0.03, 0.03))), fur=1.5, flow=1.5, round_=0.4)
    crown = [
        Blob(x + rng.normal(0, r * 0.5), y + rng.normal(0, r * 0.45), r * rng.uniform(0.5, 0.9), r * rng.uniform(0.5, 0.8))
        for _ in range(5)
    ]
    scene.flat(green, *crown, blend=0.04, fur=4.0, flow=0.9, round_=0.45)


def _fence(scene: Scene, horizon: float) -> None:
    wood = scene.pick(((0.93, 0.91, 0.86), *FLOORS))
    top = horizon - scene.rng.uniform(0.1, 0.2)
    for y in (top + 0.05, horizon - 0.02):
        scene.flat(wood * 0.85, Box(scene.wide / 2, y, scene.wide, 0.014), round_=0.3)
    step = scene.rng.uniform(0.09, 0.13)
    for x in np.arange(step / 2, scene.wide + step, step).tolist():
        scene.flat(wood * scene.rng.uniform(0.93, 1.05), Box(x, (top + horizon) / 2 + 0.02, 0.028, (horizon - top) / 2 + 0.03, 0.012), Blob(x, top, 0.022, 0.03),
                   blend=0.02, fur=0.8, flow=1.5, round_=0.35)  # fmt: skip


def _grass(scene: Scene, horizon: float, earth: np.ndarray, sandy: bool) -> None:
    rng = scene.rng
    scene.painter.image *= 1 + scene.below(horizon, 0.02) * (0.08 * scene.painter.noise(9) + 0.05 * scene.painter.noise(60, 1))
    for y in () if sandy else np.linspace(horizon + 0.02, 1.02, 7).tolist():
        middle = (scene.wide * rng.uniform(0.3, 0.7), y + rng.normal(0, 0.015), 0.03)
        sward = Limb(((-0.1, y, 0.03), middle, (scene.wide + 0.1, y + rng.normal(0, 0.01), 0.03)))
        scene.flat(earth * rng.uniform(0.9, 1.1), sward, fur=4.5 + 5 * (y - horizon), flow=math.pi / 2, opacity=0.6, soft=3)
    for y in np.sort(rng.uniform(horizon, 1.05, 14)).tolist():
        x, tall = rng.uniform(0, scene.wide), rng.uniform(0.02, 0.05) * (0.6 + 1.2 * (y - horizon))
        colour = (scene.pick(GREENS) if sandy else earth) * rng.uniform(0.72, 1.3)
        blades = [
            curve(((x + d, y), (x + d, y - tall), (x + d + rng.normal(0, 0.02), y - tall * 1.4)), 0.004, 0.001, 3)
            for d in rng.normal(0, 0.015, 3)
        ]
        scene.flat(colour, *blades, opacity=0.85)
    for _ in range(rng.integers(0, 26)):
        x, y, r = rng.uniform(0, scene.wide), rng.uniform(horizon + 0.03, 1), rng.uniform(0.007, 0.014)
        colour = scene.pick(((0.97, 0.95, 0.90), (0.93, 0.72, 0.30), (0.85, 0.45, 0.50), (0.66, 0.56, 0.80)))
        scene.flat(colour, Blob(x, y, r, r * 0.8), Blob(x + r, y + r * 0.4, r * 0.8, r * 0.6), blend=0.004, round_=0.2)
        scene.flat((0.95, 0.8, 0.35), Blob(x + r * 0.4, y + r * 0.1, r * 0.35, r * 0.3))
