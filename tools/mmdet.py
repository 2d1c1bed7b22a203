"""Runs one of MMDetection's own tools: ``mmcast mmdet``."""

from mmcast.cli.command import leave_the_scripts_folder

if __name__ == '__main__':
    leave_the_scripts_folder()
    from mmcast.cli.mmdet import main

    main()
