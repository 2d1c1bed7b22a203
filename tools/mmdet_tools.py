"""Runs one of MMDetection's own tools: ``mmcast mmdet``."""

from mmcast.cli.errors import report_errors
from mmcast.cli.mmdet import main

if __name__ == '__main__':
    report_errors(main)()
