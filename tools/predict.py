"""Segments images or a video: ``mmcast predict``."""

from mmcast.cli.command import run_tool

if __name__ == '__main__':
    run_tool('mmcast.cli.predict')
