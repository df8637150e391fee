"""The HTML page as a PDF, by whichever Chromium there is."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from petseg_lib.config import ReadableError, shown
from petseg_lib.disk import write_atomically

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge", "microsoft-edge")
MACOS = [f"/Applications/{name}.app/Contents/MacOS/{name}" for name in ("Chromium", "Google Chrome", "Microsoft Edge")]
WINDOWS = ("Google/Chrome/Application/chrome.exe", "Microsoft/Edge/Application/msedge.exe")
WINDOWS_FOLDERS = ("ProgramFiles", "ProgramFiles(x86)", "LOCALAPPDATA")
SECONDS = 300  # a page of many pictures takes a few
# The page is ours, has no script and asks for nothing: no sandbox (which many containers cannot give) and no network.
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--no-pdf-header-footer",
    "--generate-pdf-document-outline",
)


class PdfError(ReadableError):
    """A PDF that could not be made."""


def find_browser() -> Path | None:
    """A Chromium, Chrome or Edge: the environment variable CHROME_PATH, or one on the PATH, or where macOS and Windows install it."""
    given = os.environ.get("CHROME_PATH")
    if given:
        found = shutil.which(given)
        if not found:
            raise PdfError(f"CHROME_PATH is {given!r}, but it must be the program file of a Chromium, Chrome or Edge")
        return Path(found)
    folders = [os.environ[name] for name in WINDOWS_FOLDERS if name in os.environ]
    installed = [*MACOS, *(Path(folder) / program for program in WINDOWS for folder in folders)]
    places = (*filter(None, map(shutil.which, NAMES)), *(path for path in installed if Path(path).is_file()))
    return Path(places[0]) if places else None


def print_pdf(browser: Path, page: Path, pdf: Path, seconds: float = SECONDS) -> Path:
    """Print a page that lies on this machine; the PDF is written whole or not at all.

    Args:
        seconds: after which the browser is ended.

    Raises:
        PdfError: the browser made none, or took too long.
    """
    # Beside the page, because a browser that is installed as a snap may not read or write anywhere else. What it says goes
    # to a file: processes of a browser that was ended may hold a pipe open.
    with tempfile.TemporaryDirectory(prefix="printing-", dir=pdf.parent, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        printed, complaints = folder / "page.pdf", folder / "stderr"
        command = [
            browser,
            *OPTIONS,
            f"--user-data-dir={folder / 'profile'}",
            f"--print-to-pdf={printed}",
            page.absolute().as_uri(),
        ]
        with complaints.open("wb") as file:
            try:
                status = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=file, timeout=seconds, check=False).returncode
            except subprocess.TimeoutExpired:
                raise PdfError(f"{browser.name} did not print {shown(page)} within {seconds:g} s: there is no PDF") from None
        if not printed.is_file() or not printed.read_bytes().startswith(b"%PDF"):
            words = complaints.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            reason = words[-1] if words else f"exit status {status}"
            raise PdfError(f"{browser.name} made no PDF of {shown(page)}: {reason}")
        write_atomically(pdf, printed.read_bytes())
    return pdf
