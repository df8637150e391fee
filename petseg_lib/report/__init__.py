"""What a profile's finished runs leave for readers: one HTML page, its PDF, and tables for a paper."""

from petseg_lib.report.page import missing_runs, write_report
from petseg_lib.report.pdf import find_browser, print_pdf
from petseg_lib.report.tables import write_tables

__all__ = ["find_browser", "missing_runs", "print_pdf", "write_report", "write_tables"]
