"""Converts DSB2018: ``mmcast convert dsb2018``."""

from mmcast.cli.command import run_tool

if __name__ == '__main__':
    run_tool('mmcast.cli.converters.dsb2018')
