"""Writes labels for other trainers: ``mmcast export-labels``."""

from mmcast.cli.command import run_tool

if __name__ == '__main__':
    run_tool('mmcast.cli.export_labels')
