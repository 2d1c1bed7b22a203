"""Looks for mistakes in a data set without changing it: `tools/check_dataset.py`."""
from .findings import CURES, NOTES, Finding
from .report import Report
from .run import check_dataset
from .sheet import write_sheet

__all__ = ['CURES', 'NOTES', 'Finding', 'Report', 'check_dataset', 'write_sheet']
