"""Merges corrected labels into the labeled set: ``mmcast review merge``."""

from mmcast.cli.command import run_tool

if __name__ == '__main__':
    run_tool('mmcast.cli.review.merge')
