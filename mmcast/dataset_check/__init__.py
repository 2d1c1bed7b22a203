"""Looks for mistakes in a data set without changing it: `tools/check_dataset.py`.

It is no part of `mmcast.datasets`, since importing that imports mmdet: ten times the time and memory that the
check itself needs, in every process. Only the sheet of overlays needs that.
"""
from .findings import CURES, NOTES, Finding
from .report import Report
from .run import check_dataset
from .sheet import write_sheet

__all__ = ['CURES', 'NOTES', 'Finding', 'Report', 'check_dataset', 'write_sheet']
