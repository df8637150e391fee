"""The HTML page as a PDF, by whichever Chromium there is."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from petseg_lib.config import ReadableError, shown
from petseg_lib.runs import write_atomically

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge", "microsoft-edge")
APPLICATIONS = ("Chromium", "Google Chrome", "Microsoft Edge")
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
    """A Chromium, Chrome or Edge: the environment variable CHROME_PATH, or one on the PATH, or an application of macOS."""
    given = os.environ.get("CHROME_PATH")
    if given:
        found = shutil.which(given)
        if not found:
            raise PdfError(f"CHROME_PATH is {given!r}, but it must be the program file of a Chromium, Chrome or Edge")
        return Path(found)
    bundles = (Path(f"/Applications/{name}.app/Contents/MacOS/{name}") for name in APPLICATIONS)
    places = (*filter(None, map(shutil.which, NAMES)), *(path for path in bundles if path.is_file()))
    return Path(places[0]) if places else None


def print_pdf(browser: Path, page: Path, pdf: Path, seconds: float = SECONDS) -> Path:
    """Print a page that lies on this machine; the PDF is written whole or not at all.

    Args:
        seconds: after which the browser is ended.

    Raises:
        PdfError: the browser made none, or took too long.
    """
    # Beside the page, because a browser that is installed as a snap may not read or write anywhere else.
    with tempfile.TemporaryDirectory(prefix="printing-", dir=pdf.parent) as folder:
        printed = Path(folder) / "page.pdf"
        command = [browser, *OPTIONS, f"--user-data-dir={folder}/profile", f"--print-to-pdf={printed}", page.absolute().as_uri()]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            raise PdfError(f"{browser.name} did not print {shown(page)} within {seconds:g} s: there is no PDF") from None
        if not printed.is_file() or not printed.read_bytes().startswith(b"%PDF"):
            words = ended.stderr.strip().splitlines()[-1:] or [f"exit status {ended.returncode}"]
            raise PdfError(f"{browser.name} made no PDF of {shown(page)}: {words[0]}")
        write_atomically(pdf, printed.read_bytes())
    return pdf
