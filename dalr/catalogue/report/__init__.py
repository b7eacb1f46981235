"""The report: a folder that opens in any browser and shows what a catalogue is and what a run made of it."""

from dalr.catalogue.report.content import Report, gather_report
from dalr.catalogue.report.writing import write_report

__all__ = ["Report", "gather_report", "write_report"]
