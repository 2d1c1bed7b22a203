"""``mmcast COMMAND``: knows the commands by name and imports the module of the one called."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from mmcast.cli.command import Call, run_command, typed_name
from mmcast.cli.errors import reporting_errors
from mmcast.spelling import nearest
from mmcast.version import __version__

_USAGE_ERROR = 2  # as in argparse


@dataclass(frozen=True)
class Command:
    """A line of the list, and the module to import when the command is called.

    Args:
        help: what it does, in one line.
        module: a :class:`~mmcast.cli.command.CommandModule`.
    """

    help: str
    module: str


@dataclass(frozen=True)
class Group:
    """A command of further commands, by name.

    Args:
        help: what they do, in one line.
        examples: command lines by what they do.
        commands: the commands by name.
    """

    help: str
    examples: Mapping[str, str]
    commands: Mapping[str, Command]


@dataclass(frozen=True)
class Passed:
    """A command that reads all of its arguments itself.

    Args:
        help: what it does, in one line.
        module: has ``main(argv)``.
    """

    help: str
    module: str


CONVERTERS = {
    'ade20k': Command('ADE20K, its 100 instance classes', 'mmcast.cli.converters.ade20k'),
    'cityscapes': Command('Cityscapes, or Toy Cityscapes', 'mmcast.cli.converters.cityscapes'),
    'cvat': Command('CVAT for images 1.1 (XML)', 'mmcast.cli.converters.cvat'),
    'dsb2018': Command('nuclei of the 2018 Data Science Bowl', 'mmcast.cli.converters.dsb2018'),
    'instance_maps': Command(
        'maps in which every object has a number', 'mmcast.cli.converters.instance_maps'
    ),
    'label_studio': Command(
        "Label Studio's JSON: polygons, brush masks", 'mmcast.cli.converters.label_studio'
    ),
    'labelme': Command("Labelme's JSON files", 'mmcast.cli.converters.labelme'),
    'toy_cityscapes': Command(
        'generate Toy Cityscapes: synthetic street scenes', 'mmcast.cli.converters.toy_cityscapes'
    ),
    'voc': Command('Pascal VOC masks (SegmentationObject)', 'mmcast.cli.converters.voc'),
    'yolo': Command('YOLO-seg: polygons in text files', 'mmcast.cli.converters.yolo'),
}

REVIEW = {
    'export': Command(
        'the least sure images as a task of CVAT, Label Studio, FiftyOne, Labelme',
        'mmcast.cli.review.export',
    ),
    'merge': Command('corrected labels into the labeled set', 'mmcast.cli.review.merge'),
}

SECTIONS: dict[str, dict[str, Command | Group | Passed]] = {
    'Data': {
        'convert': Group(
            'convert a data set to COCO JSON',
            {
                'Cityscapes': '{command} cityscapes data/cityscapes --num-workers 8',
                "Labelme's JSON files": '{command} labelme data/leaves',
                'synthetic street scenes': '{command} toy_cityscapes data/toy_cityscapes',
            },
            CONVERTERS,
        ),
        'check': Command('look for mistakes in a COCO data set', 'mmcast.cli.check'),
        'split': Command('split it into labeled and unlabeled images', 'mmcast.cli.split'),
    },
    'Training': {
        'train': Command('train one config, or run the steps of a pipeline', 'mmcast.cli.train'),
        'test': Command('metrics of a checkpoint', 'mmcast.cli.test'),
        'label': Command('let a teacher label images', 'mmcast.cli.label'),
        'inspect': Command('show pseudo-labels and their quality', 'mmcast.cli.inspect'),
        'review': Group(
            'let people correct the least sure pseudo-labels',
            {
                'the 10 least sure images of cast_toy.py, for CVAT': (
                    '{command} export work_dirs/cast_toy/06_pseudo_label_2/annotations.json '
                    '--img-dir data/toy_cityscapes/leftImg8bit/train --tool cvat --number 10 '
                    '--out review'
                ),
                'what people corrected, merged into the labeled images': (
                    '{command} merge review annotations.xml --reviewed all '
                    '--labeled data/toy_cityscapes/annotations/labeled_10percent_seed0.json '
                    '--out labeled_2.json'
                ),
            },
            REVIEW,
        ),
        'export-labels': Command(
            'labels for RF-DETR, YOLO, lightly-train, mmdet', 'mmcast.cli.export_labels'
        ),
    },
    'Deployment': {
        'export': Command('the student alone, for stock mmdet', 'mmcast.cli.export'),
        'onnx': Command('the student as one ONNX file', 'mmcast.cli.onnx'),
        'predict': Command('segment images or a video', 'mmcast.cli.predict'),
        'benchmark': Command('size and speed of models', 'mmcast.cli.benchmark'),
    },
    'Environment': {
        'env': Command('what is installed, what is wrong, what to type', 'mmcast.cli.env'),
        'mmdet': Passed("run one of MMDetection's own tools", 'mmcast.cli.mmdet'),
    },
}
_TOP = Group(
    'Semi-supervised instance segmentation by foundation model distillation (CAST).',
    {
        'train a student on synthetic street scenes, about 10 minutes without a GPU': (
            '{command} train cast_toy.py'
        ),
        'write it as an ONNX file': '{command} onnx work_dirs/cast_toy --out student.onnx',
        'segment images with it, without torch': (
            '{command} predict student.onnx data/toy_cityscapes/leftImg8bit/val --out found'
        ),
    },
    {name: command for section in SECTIONS.values() for name, command in section.items()},
)


def main(argv: Sequence[str] | None = None) -> None:
    """The console script ``mmcast``, and ``python -m mmcast``.

    Args:
        argv: the arguments; default those of this process.

    Raises:
        SystemExit: there was an error, or the command has an exit status of its own.
    """
    command, program = 'mmcast', Path(sys.argv[0])
    if program.name == '__main__.py':
        command = f'{typed_name(sys.executable)} -m mmcast'
    elif program.stem == 'mmcast':
        command = typed_name(sys.argv[0])
    call = Call('mmcast', command, '-m mmcast')
    _run(_TOP, list(sys.argv[1:] if argv is None else argv), call)


def _run(group: Group, argv: list[str], call: Call) -> None:
    """Runs the command of a group that ``argv`` names."""
    name, *rest = argv or ['']
    if name in ('-h', '--help'):
        with reporting_errors():
            print(_help(group, call))
    elif name == '--version' and group is _TOP:
        print(f'mmcast {__version__}')
    elif not name:
        print(_help(group, call), file=sys.stderr)
        sys.exit(_USAGE_ERROR)
    elif name not in group.commands:
        _refuse(name, group, call)
    else:
        chosen = group.commands[name]
        if isinstance(chosen, Group):
            _run(chosen, rest, call.of(name))
        elif isinstance(chosen, Passed):
            debug = rest[:1] == ['--debug']
            with reporting_errors(debug):
                import_module(chosen.module).main(rest[debug:])
        else:
            run_command(chosen.module, rest, call.of(name))


def _help(group: Group, call: Call) -> str:
    sections = SECTIONS if group is _TOP else {'Commands': group.commands}
    width = max(map(len, group.commands))
    lines = [call.fill_in(group.examples), f'usage: {call.name} COMMAND ...', '', group.help]
    for title, commands in sections.items():
        lines += ['', f'{title}:']
        lines += [f'  {name:{width}}  {entry.help}' for name, entry in commands.items()]
    return '\n'.join([*lines, '', f'{call.name} COMMAND --help shows examples and options.'])


def _refuse(name: str, group: Group, call: Call) -> NoReturn:
    similar = nearest(name, group.commands)
    hint = f'did you mean {similar}? ' if similar else ''
    print(
        f'error: {call.name} has no command {name!r}: {hint}{call.name} --help lists the commands',
        file=sys.stderr,
    )
    sys.exit(_USAGE_ERROR)
