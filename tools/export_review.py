"""Writes the least sure images as a task of an annotation tool: ``mmcast review export``."""

from mmcast.cli.command import run_tool

if __name__ == '__main__':
    run_tool('mmcast.cli.review.export')
