"""``python -m mmcast COMMAND``, and ``torchrun -m mmcast COMMAND`` for several processes."""

from mmcast.cli.main import main

if __name__ == '__main__':
    main()
