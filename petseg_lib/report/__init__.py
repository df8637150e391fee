"""What a profile's finished runs leave for readers: one HTML page, its PDF, and tables for a paper."""

from petseg_lib.report.chapters import without_notebook
from petseg_lib.report.page import NO_NOTEBOOK, missing_runs, write_report
from petseg_lib.report.pdf import find_browser, print_pdf
from petseg_lib.report.tables import write_tables

__all__ = ["NO_NOTEBOOK", "find_browser", "missing_runs", "print_pdf", "without_notebook", "write_report", "write_tables"]
