"""Makes the shipped weights again, for those who develop mmcast."""

from mmcast.cli.command import run_tool

if __name__ == '__main__':
    run_tool('mmcast.cli.toy_weights')
