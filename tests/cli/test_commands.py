"""``mmcast`` and ``tools/``: what they print without work to do, and that they are one."""

import os
import re
import runpy
import shlex
import subprocess
import sys
import types
from importlib import import_module
from pathlib import Path

import pytest

from mmcast.cli.command import Call, CommandParser
from mmcast.cli.main import SECTIONS, Command, Group, main
from mmcast.typed_values import Typed
from mmcast.version import __version__

ROOT = Path(__file__).parents[2]
HEAVY = ('torch', 'mmdet', 'mmengine', 'mmcv', 'mmpretrain', 'transformers', 'numpy', 'cv2')

# What a tool is as a command; None is none of ``mmcast``'s.
TOOLS = {
    'benchmark.py': 'benchmark',
    'check_dataset.py': 'check',
    'check_env.py': 'env',
    'dataset_converters/ade20k.py': 'convert ade20k',
    'dataset_converters/cityscapes.py': 'convert cityscapes',
    'dataset_converters/cvat.py': 'convert cvat',
    'dataset_converters/dsb2018.py': 'convert dsb2018',
    'dataset_converters/instance_maps.py': 'convert instance_maps',
    'dataset_converters/label_studio.py': 'convert label_studio',
    'dataset_converters/labelme.py': 'convert labelme',
    'dataset_converters/toy_cityscapes.py': 'convert toy_cityscapes',
    'dataset_converters/voc.py': 'convert voc',
    'dataset_converters/yolo.py': 'convert yolo',
    'export_labels.py': 'export-labels',
    'export_onnx.py': 'onnx',
    'export_review.py': 'review export',
    'export_student.py': 'export',
    'inspect_pseudo_labels.py': 'inspect',
    'make_splits.py': 'split',
    'make_toy_weights.py': None,
    'merge_review.py': 'review merge',
    'predict.py': 'predict',
    'pseudo_label.py': 'label',
    'test.py': 'test',
    'train.py': 'train',
}


def commands() -> dict[str, Command]:
    """Every command that has a parser of ours, by its words behind ``mmcast``."""
    found = {}
    for section in SECTIONS.values():
        for name, command in section.items():
            if isinstance(command, Group):
                found |= {f'{name} {sub}': entry for sub, entry in command.commands.items()}
            elif isinstance(command, Command):
                found[name] = command
    return found


COMMANDS = commands()


def run(*arguments: str | Path, cwd: Path = ROOT, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        text=True,
        **({'capture_output': True} | options),
    )


def mmcast(*arguments: str | Path, **options) -> subprocess.CompletedProcess:
    return run('-m', 'mmcast', *arguments, **options)


# ---- help


@pytest.mark.parametrize('arguments', [*COMMANDS, *TOOLS, '', 'convert', 'review'])
def test_help_begins_with_examples_and_waits_for_no_network(arguments):
    called = [f'tools/{arguments}'] if arguments in TOOLS else ['-m', 'mmcast', *arguments.split()]
    done = run('-X', 'importtime', *called, '--help')
    assert done.returncode == 0, done.stderr
    imported = set(re.findall(r'\|\s+([\w.]+)$', done.stderr, re.MULTILINE))
    assert 'mmcast.cli.command' in imported and not imported & set(HEAVY)

    title, *examples = done.stdout.partition('\n\nusage: ')[0].splitlines()
    assert title == 'Examples:' and len(examples) >= 2 and len(examples) % 2 == 0
    for what, line in zip(examples[::2], examples[1::2]):
        assert re.fullmatch(r'  \S.*:', what)
        words = shlex.split(line)
        if 'torch.distributed.run' in words:
            words = [words[0], *words[words.index('--nproc_per_node=2') + 1 :]]
        assert line.startswith('    ') and words[1 : len(called) + 1] == called
        assert '--help' not in line and '{' not in line


@pytest.mark.parametrize('words', COMMANDS)
def test_examples_are_what_the_parser_takes(words):
    module = import_module(COMMANDS[words].module)
    parser = CommandParser(module, Call(f'mmcast {words}', f'mmcast {words}', f'-m mmcast {words}'))
    for line in parser.examples.splitlines()[2::2]:
        arguments = shlex.split(line.partition(f'mmcast {words}')[2])
        assert module.run and parser.parse_args(arguments).debug is False


def test_help_of_a_tool_is_that_of_its_command(monkeypatch, capsys):
    """But for the examples, which say what works there."""
    for tool, words in TOOLS.items():
        if words is None:
            continue
        monkeypatch.setattr(sys, 'argv', [f'tools/{tool}', '--help'])
        with pytest.raises(SystemExit, match='0'):
            runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')
        of_tool = capsys.readouterr().out.replace(f'tools/{tool}', f'mmcast {words}')
        with pytest.raises(SystemExit, match='0'):
            main([*words.split(), '--help'])
        of_command = capsys.readouterr().out
        for text in (of_tool, of_command):
            assert 'show the traceback' in text
        flags = [
            set(re.findall(r'--[\w-]+', t.partition('usage:')[2])) for t in (of_tool, of_command)
        ]
        assert flags[0] == flags[1]


def test_every_tool_is_here():
    found = {path.relative_to(ROOT / 'tools').as_posix() for path in (ROOT / 'tools').rglob('*.py')}
    assert found - {'mmdet.py'} == set(TOOLS)  # mmdet's tools have a help of their own
    assert set(COMMANDS) == set(filter(None, TOOLS.values()))


def test_a_tool_and_its_command_call_one_function(monkeypatch):
    calls = []
    for tool, words in TOOLS.items():
        if words is None:
            continue
        module = import_module(COMMANDS[words].module)
        parser = CommandParser(module, Call('', '', ''))
        arguments = shlex.split(parser.examples.splitlines()[2])
        monkeypatch.setattr(module, 'run', calls.append)
        monkeypatch.setattr(sys, 'argv', [f'tools/{tool}', *arguments])
        runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')
        main([*words.split(), *arguments])
        by_tool, by_command = (vars(args) for args in calls[-2:])
        assert by_tool.pop('parser').call.name.endswith(f'tools/{tool}')
        assert by_command.pop('parser').call.name == f'mmcast {words}'
        assert by_tool == by_command
    assert len(calls) == 2 * len(COMMANDS)


def test_examples_name_the_python_that_runs_them():
    """The one of a virtual environment that is not activated is not what the shell finds."""
    done = run('tools/train.py', '--help')
    python = shlex.split(done.stdout.splitlines()[2])[0]
    asked = subprocess.run(
        [python, '-c', 'import sys; print(sys.prefix)'], cwd=ROOT, capture_output=True, text=True
    )
    assert asked.stdout.strip() == sys.prefix


# ---- the list


def test_without_arguments_the_commands_are_listed_and_nothing_was_done():
    done = mmcast()
    assert done.returncode == 2 and done.stdout == ''
    listed = re.findall(r'^  ([\w-]+) +\w', done.stderr.partition('usage:')[2], re.MULTILINE)
    assert listed == [name for section in SECTIONS.values() for name in section]
    assert mmcast('--help').stdout == done.stderr
    assert mmcast('--version').stdout == f'mmcast {__version__}\n'


@pytest.mark.parametrize(
    'words, hint',
    [
        (['trian'], "mmcast has no command 'trian': did you mean train? "),
        (['convert', 'citscapes'], "convert has no command 'citscapes': did you mean cityscapes? "),
        (['--steps'], "mmcast has no command '--steps': mmcast --help lists"),
    ],
)
def test_an_unknown_command_is_refused_with_the_nearest_name(words, hint):
    done = mmcast(*words)
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.startswith('error: ') and hint in done.stderr
    assert done.stderr.count('\n') == 1


def test_a_command_that_reads_its_arguments_itself_gets_them(monkeypatch):
    module, calls = types.ModuleType('mmcast.cli.mmdet'), []
    module.main = calls.append
    monkeypatch.setitem(sys.modules, 'mmcast.cli.mmdet', module)
    main(['mmdet', 'get_flops', '--help'])
    main(['mmdet'])
    assert calls == [['get_flops', '--help'], []]


# ---- options that several commands share


def test_config_options_are_kept_as_they_were_typed():
    """What they mean depends on the config that they are put into."""
    module = import_module('mmcast.cli.test')
    parser = CommandParser(module, Call('', '', ''))
    options = ['a.b=1', 'c=[1, 2]', 'd=My Drive/x=y']
    args = parser.parse_args(['c.py', 'x.pth', '--cfg-options', *options])
    assert args.cfg_options == {'a.b': '1', 'c': '[1, 2]', 'd': 'My Drive/x=y'}
    assert all(isinstance(text, Typed) for text in args.cfg_options.values())


def test_a_config_option_without_value_is_one_line(tmp_path):
    done = mmcast('test', 'c.py', 'x.pth', '--cfg-options', 'batch_size', cwd=tmp_path)
    assert done.returncode == 2
    assert 'error: --cfg-options: batch_size is not KEY=VALUE; put quotes' in done.stderr


def test_a_shipped_config_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        SystemExit, match=r'cast_toy.py has no step nothing; there are data, zero_shot'
    ):
        main(['train', 'cast_toy.py', '--step', 'nothing'])
    assert not list(tmp_path.iterdir())
