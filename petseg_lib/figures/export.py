"""Figures as files, the same bytes for the same picture, with all captions in one README.md beside them."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from petseg_lib.disk import write_atomically
from petseg_lib.figures.style import STYLE

HEAD = "# Figures\n\nMade by the notebooks, in alphabetical order.\n"
FORMATS = ("png", "svg", "pdf")
LINKED = ("png", "svg")  # PDF is for print: it need not lie where the captions are read
# Of SVG and PDF only the photographs inside have any. PNG of photographs are large, and have no thin lines to lose.
DPI = {"png": 150, "svg": 80, "pdf": 200}
PHOTOGRAPHIC_DPI = DPI | {"png": 100}

# What would name the day or the version of matplotlib is left out: the same figure gives the same file.
_METADATA = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def save_figure(figure: Figure, folder: str | Path, name: str, caption: str, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write a figure as `folder/name.png` and in other formats, and its caption into `folder/README.md`.

    Every file is written whole or not at all. Notebooks that run at the same time may share the folder.

    Args:
        folder: made where it does not exist.
        name: file name without ending; the captions are sorted by it.
        caption: one paragraph that says what the figure shows; it is kept inside the PNG.
        formats: of png, svg, pdf; png must be among them, because it carries the caption.

    Returns:
        The paths written, README.md excluded.

    Raises:
        ValueError: a format is unknown, png is not among them, or the name is not a plain file name.
    """
    unknown = [kind for kind in formats if kind not in FORMATS]
    if unknown or "png" not in formats:
        raise ValueError(f"the formats are {', '.join(formats)}, but they must be png and any of svg, pdf")
    if not name or Path(name).name != name:
        raise ValueError(f"the figure's name is {name!r}, but it must be a file name without folder and ending")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in formats]
    for path, kind in zip(paths, formats, strict=True):
        write_atomically(path, _encoded(figure, kind, " ".join(caption.split())))
    _write_captions(folder)
    return paths


def _encoded(figure: Figure, kind: str, caption: str) -> bytes:
    buffer = io.BytesIO()
    dpi = (PHOTOGRAPHIC_DPI if getattr(figure, "photographic", False) else DPI)[kind]
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=_METADATA[kind])
    return _opaque(buffer, caption) if kind == "png" else buffer.getvalue()


def _opaque(buffer: io.BytesIO, caption: str) -> bytes:
    """The same PNG without its alpha channel, which is full everywhere: a seventh smaller where it shows photographs."""
    picture, written, text = Image.open(buffer), io.BytesIO(), PngInfo()
    text.add_itxt("Description", caption)
    picture.convert("RGB").save(written, "png", optimize=True, pnginfo=text, dpi=picture.info["dpi"])
    return written.getvalue()


def _write_captions(folder: Path) -> None:
    """README.md from the captions inside the PNG files.

    Two notebooks that finish together both look again after writing: whoever is last has seen every file.
    """
    readme = folder / "README.md"
    if readme.is_file() and not readme.read_text(encoding="utf-8", errors="replace").startswith(HEAD):
        return  # someone's own
    while not readme.is_file() or readme.read_text(encoding="utf-8") != _captions(folder):
        write_atomically(readme, _captions(folder).encode())


def _captions(folder: Path) -> str:
    parts = [HEAD]
    for path in sorted(folder.glob("*.png")):
        try:
            with Image.open(path) as image:
                caption = " ".join(image.info.get("Description", "").split())  # of a picture of one's own, on one line as well
        except OSError:
            continue  # damaged, and so no figure
        files = [f"[{kind.upper()}]({path.stem}.{kind})" for kind in LINKED if path.with_suffix(f".{kind}").is_file()]
        parts.append(f"\n## {path.stem}\n\n![{path.stem}]({path.name})\n\n{caption}\n\n{' · '.join(files)}\n")
    return "".join(parts)
