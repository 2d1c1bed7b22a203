"""One command: its parser, its help and its run, for ``mmcast NAME`` and for ``tools/NAME.py``."""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from typing import Protocol

from mmcast.cli.errors import reporting_errors


@dataclass(frozen=True)
class Call:
    """How a command is called: what its help and its messages say.

    Args:
        name: short, such as ``mmcast train``.
        command: what a person can paste into the shell before the arguments; with the folder where
            the shell does not find the program by its name.
        script: what stands for it behind ``python -m torch.distributed.run``.
    """

    name: str
    command: str
    script: str

    def of(self, name: str) -> 'Call':
        """The call of a command below this one."""
        return Call(*(f'{part} {name}' for part in (self.name, self.command, self.script)))

    def fill_in(self, examples: Mapping[str, str]) -> str:
        """Examples as text: each command alone on its line, below what it does.

        Args:
            examples: see :class:`CommandModule`.
        """
        python = typed_name(sys.executable)
        torchrun = f'{python} -m torch.distributed.run --standalone'
        lines = ['Examples:']
        for title, example in examples.items():
            line = example.format(command=self.command, script=self.script, torchrun=torchrun)
            lines += [f'  {title}:', f'    {line}']
        return '\n'.join(lines) + '\n'


def typed_name(path: str) -> str:
    """What to type for a program: its name where the shell finds it by that, else its path."""
    name, folder = Path(path).stem, Path.cwd()
    found = shutil.which(name)
    if found and _same_program(found, path):
        return name
    if Path(path).is_relative_to(folder):
        path = os.path.join('.', Path(path).relative_to(folder))
    return subprocess.list2cmdline([path])


def _same_program(first: str, second: str) -> bool:
    """Links are not followed: a virtual environment's Python is one."""
    return os.path.normcase(os.path.abspath(first)).removesuffix('.exe') == os.path.normcase(
        os.path.abspath(second)
    ).removesuffix('.exe')


class CommandModule(Protocol):
    """What a module of ``mmcast.cli`` has for a command; its docstring is the description.

    It imports the standard library only: ``--help`` waits for nothing else. May have
    ``FAILURE_STATUS``, the exit status of errors where that is not 1.
    """

    # A command line by what it does. ``{command}`` stands for how this command is called, and
    # ``{torchrun} ... {script}`` for the same on several processes.
    EXAMPLES: Mapping[str, str]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""

    def run(self, args: argparse.Namespace) -> int | None:
        """Does the work; returns the exit status, or None for 0.

        ``args.parser`` is the parser: ``error`` ends a call that makes no sense with status 2, and
        ``call.command`` is how the command was called.
        """


class CommandParser(argparse.ArgumentParser):
    """The parser of a command; its help begins with examples.

    Args:
        module: of the command.
        call: how it is called.
    """

    def __init__(self, module: CommandModule, call: Call) -> None:
        description = cleandoc(module.__doc__ or '').replace('``', '')
        super().__init__(prog=call.name, description=description)
        self.call, self.examples = call, call.fill_in(module.EXAMPLES)
        module.add_arguments(self)
        self.add_argument('--debug', action='store_true', help='show the traceback of an error')
        self.set_defaults(parser=self)

    def format_help(self) -> str:
        return f'{self.examples}\n{super().format_help()}'


def run_command(module_name: str, argv: Sequence[str], call: Call) -> None:
    """Parses arguments and runs a command.

    Args:
        module_name: a :class:`CommandModule`.
        argv: the arguments.
        call: how the command is called.

    Raises:
        SystemExit: there was an error, or the command has an exit status of its own.
    """
    module = import_module(module_name)
    with contextlib.suppress(AttributeError):  # some streams cannot, and need not
        # The terminal may lack characters of file names.
        sys.stdout.reconfigure(errors='backslashreplace')
    with reporting_errors('--debug' in argv, getattr(module, 'FAILURE_STATUS', 1)):
        args = CommandParser(module, call).parse_args(argv)
        status = module.run(args)
    if status is not None:
        sys.exit(status)


def leave_the_scripts_folder() -> None:
    """Takes the folder of the script that runs from the path, where Python puts it first: there
    ``tools/mmdet.py`` would hide the package mmdet.
    """
    folder = Path(sys.argv[0]).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or '.').resolve() != folder]


def run_tool(module_name: str) -> None:
    """What a file of ``tools/`` does: the command of a module with this process's arguments."""
    leave_the_scripts_folder()
    script = subprocess.list2cmdline(sys.argv[:1])
    call = Call(script, f'{typed_name(sys.executable)} {script}', script)
    run_command(module_name, sys.argv[1:], call)
