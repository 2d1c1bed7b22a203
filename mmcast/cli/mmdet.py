"""MMDetection's own tools, as they are installed, with mmcast's registries loaded first.

    mmcast mmdet                                                list the tools
    mmcast mmdet get_flops toy/toy_student_refine.py            run one
    mmcast mmdet get_flops --help                               what it takes

mmdet's scripts import mmdet before anything of mmcast, so they know neither its configs nor its
stand-in for mmcv's compiled operators. Here they run in a process that has both.
"""

import argparse
import ast
import difflib
import importlib.util
import re
import runpy
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from mmcast.cli.errors import report_errors
from mmcast.errors import CASTError

# The tools that the tests run, and what they are for here.
TESTED = {
    'analyze_logs': "curves (not of AP) and time per iteration, from a run's scalars.json",
    'analyze_results': 'images with the best and the worst box AP, from a .pkl of predictions',
    'benchmark': 'speed of reading data; of a network on CUDA alone (mmcast benchmark: anywhere)',
    'browse_dataset': 'training images as the network sees them, augmented and with their labels',
    'coco_error_analysis': 'precision-recall curves by cause of error, from a COCO results JSON',
    'confusion_matrix': 'which class is taken for which, from a .pkl of predictions',
    'eval_metric': 'the metrics of a config, from a .pkl of predictions',
    'get_flops': 'FLOPs and parameters',
    'test': "mmdet's own test; mmcast test refuses a checkpoint that does not fit",
    'test_robustness': 'AP on images with noise, blur, weather and the like',
    'train': "mmdet's own training of one config; mmcast train runs pipelines too",
}
_READS_PIPELINES = ('print_config',)


@report_errors
def main(argv: Sequence[str] | None = None) -> None:
    """What ``mmcast mmdet`` does.

    Args:
        argv: the name of a tool and its arguments; default those of this process. Without any, or
            with ``--help`` alone, the tools are listed.

    Raises:
        SystemExit: the tool ended with a status, or an error that a user can fix was printed.
    """
    name, *args = (sys.argv[1:] if argv is None else argv) or ['--help']
    tools = installed_tools()
    if name in ('-h', '--help'):
        print(list_of(tools))
        return
    name = Path(name).name.removesuffix('.py')
    if name not in tools:
        nearest = difflib.get_close_matches(name, tools, n=1, cutoff=0)[0]
        raise CASTError(
            f'mmdet has no tool {name}; the nearest is {nearest}, and mmcast mmdet lists all'
        )
    run_tool(name, tools[name], args)


# ---- finding


def installed_tools() -> dict[str, Path]:
    """mmdet's scripts by name. Of one name the file with the shortest path has it, as in ``mim
    run``; another one is called ``folder:name``.

    Raises:
        CASTError: mmdet is not installed, or without its tools.
    """
    spec = importlib.util.find_spec('mmdet')
    if spec is None or spec.origin is None:
        raise CASTError('mmdet is not installed: pip install onedl-mmdetection')
    folder = Path(spec.origin).parent / '.mim' / 'tools'
    tools: dict[str, Path] = {}
    for path in sorted(folder.rglob('*.py'), key=lambda path: (len(path.parts), path)):
        if '__main__' in path.read_text(encoding='utf-8'):
            name = path.stem if path.stem not in tools else f'{path.parent.name}:{path.stem}'
            tools[name] = path
    if not tools:
        raise CASTError(f'mmdet has no tools in {folder}: install onedl-mmdetection from a wheel')
    return tools


def list_of(tools: dict[str, Path]) -> str:
    """A line for each tool, those that mmcast's tests run first."""
    tested = {name: line for name, line in TESTED.items() if name in tools}
    others = {
        name: _description(path) or f'{path.parent.name}/{path.name}'
        for name, path in sorted(tools.items())
        if name not in tested
    }
    lines = ['mmcast mmdet NAME ARGS runs a tool of MMDetection; NAME --help tells what it takes.']
    for title, group in (("Tested with mmcast's configs", tested), ('Installed too', others)):
        width = max(map(len, group), default=0)
        lines += ['', f'{title}:', *(f'  {name:{width}}  {line}' for name, line in group.items())]
    return '\n'.join(lines)


def _description(path: Path) -> str:
    """What a script tells ``argparse`` that it is for; '' where it does not say."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Call) and 'ArgumentParser' in ast.unparse(node.func):
            values = [
                *node.args,
                *(word.value for word in node.keywords if word.arg == 'description'),
            ]
            text = ''.join(value.value for value in values if isinstance(value, ast.Constant))
            return ' '.join(text.split())
    return ''


# ---- running


def run_tool(name: str, path: Path, args: Sequence[str]) -> None:
    """Runs a script of mmdet in this process.

    Args:
        name: of the tool.
        path: of its file.
        args: what the script reads from its command line. The name of a shipped config stands for
            its file.

    Raises:
        CASTError: the tool cannot do this here; says what to use instead.
    """
    args = [_config_path(arg) for arg in args]
    if name in _CHECKS and not {'-h', '--help'} & set(args):
        args = _CHECKS[name](args)
    try:
        _run_script(name, path, args)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith('mm'):
            raise
        raise CASTError(f'{name} of mmdet needs {error.name}: pip install {error.name}') from error
    except ZeroDivisionError as error:
        if name != 'benchmark':
            raise
        raise CASTError(
            'benchmark of mmdet measured nothing: give a --max-iter above --num-warmup (default 5) '
            'that the data set has batches for'
        ) from error


def _run_script(name: str, path: Path, args: Sequence[str]) -> None:
    argv, sys.argv = sys.argv, [str(path), *args]
    # Some scripts import others as `tools.*`, as they would from a checkout of mmdet.
    package = types.ModuleType('tools')
    package.__path__ = [str(next(p for p in path.parents if p.name == 'tools'))]
    sys.modules['tools'] = package
    reads_configs = re.search(
        r'^\s*(from|import) mm', path.read_text(encoding='utf-8'), re.MULTILINE
    )
    try:
        with _configs_for(name) if reads_configs else nullcontext():
            runpy.run_path(str(path), run_name='__main__')
    finally:
        sys.argv = argv
        del sys.modules['tools']


def _config_path(arg: str) -> str:
    """The file of a shipped config; anything else as it is."""
    if not arg.endswith('.py') or Path(arg).exists():
        return arg
    from mmcast.configs import find_config

    try:
        return str(find_config(arg))
    except CASTError:
        return arg


@contextmanager
def _configs_for(tool: str) -> Iterator[None]:
    """Loads our registries, and makes ``Config.fromfile`` and ``Runner.from_cfg`` return what a
    tool can work with.
    """
    from mmengine.config import Config
    from mmengine.runner import Runner

    import mmcast.registry  # noqa: F401  a config's default_scope finds it then
    from mmcast.training.batches import check_batch_sizes
    from mmcast.training.runner import CheckedRunner, CheckedTestRunner

    original, build = Config.fromfile, vars(Runner)['from_cfg']

    def fromfile(filename: Any, *args: Any, **kwargs: Any) -> Config:
        cfg = original(filename, *args, **kwargs)
        if 'steps' in cfg and tool not in _READS_PIPELINES:
            raise CASTError(
                f'{filename} is a pipeline config, and {tool} of mmdet takes that of one run, such '
                'as toy/toy_student_refine.py; mmcast train runs pipelines'
            )
        _ADAPTATIONS.get(tool, lambda cfg: None)(cfg)
        return cfg

    def from_cfg(cls: type[Runner], cfg: Config) -> Runner:
        _keep_adapters(tool, cfg)
        if tool != 'train':
            return build.__func__(CheckedTestRunner, cfg)
        check_batch_sizes(cfg)
        return build.__func__(CheckedRunner, cfg)

    Config.fromfile, Runner.from_cfg = staticmethod(fromfile), classmethod(from_cfg)
    try:
        yield
    finally:
        Config.fromfile, Runner.from_cfg = staticmethod(original), build


# ---- what a tool expects of a config that mmcast's say otherwise


def _use_plain_loading(cfg: Any) -> None:
    """analyze_results keeps the transforms that load, by their class; it does not know ours."""
    plain = {'LoadImage': 'LoadImageFromFile', 'LoadCompressedAnnotations': 'LoadAnnotations'}
    dataset = cfg.train_dataloader.dataset
    for part in dataset.get('datasets') or [dataset]:
        for transform in part.get('dataset', part).pipeline:
            kind = transform['type']
            if isinstance(kind, str):
                transform['type'] = plain.get(kind.rpartition('.')[2], kind)
                transform.pop('value_range', None)


def _add_visualization(cfg: Any) -> None:
    """--show-dir switches on the hook that draws, which mmdet's own configs have among theirs."""
    cfg.default_hooks.setdefault('visualization', dict(type='DetVisualizationHook'))


def _keep_adapters(tool: str, cfg: Any) -> None:
    """Training with LoRA loads and saves adapters by hooks; other tools take them merged."""
    if (cfg.get('model') or {}).get('lora') is None:
        return
    if tool != 'train':
        del cfg.model.lora
        return
    hooks = [dict(type='mmcast.AdapterLoadingHook'), dict(type='mmcast.AdapterSavingHook')]
    cfg.custom_hooks = [*hooks, *(cfg.get('custom_hooks') or [])]


def _resemble_a_plain_detector(cfg: Any) -> None:
    """test_robustness reads ``model.backbone`` and ``dataset_type`` and reports the AP of boxes."""
    from mmengine.config import ConfigDict

    _add_visualization(cfg)

    class Model(ConfigDict):
        # Reset by the tool so that no pretrained backbone is loaded; a test loads none.
        backbone = ConfigDict(init_cfg=ConfigDict())

    if 'backbone' in cfg.model:
        cfg.model.backbone.setdefault('init_cfg', ConfigDict())
    else:
        cfg._cfg_dict['model'] = Model(cfg.model)  # by Config's own means it becomes a ConfigDict
    if 'dataset_type' not in cfg:
        cfg.dataset_type = cfg.test_dataloader.dataset.type
    evaluators = cfg.test_evaluator
    for metric in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        if metric['type'].rpartition('.')[2] == 'CocoMetric':
            kinds = metric.get('metric', 'bbox')
            kinds = [kinds] if isinstance(kinds, str) else list(kinds)
            metric['metric'] = kinds if 'bbox' in kinds else ['bbox', *kinds]


_ADAPTATIONS: dict[str, Callable[[Any], None]] = {
    'analyze_results': _use_plain_loading,
    'test': _add_visualization,
    'test_robustness': _resemble_a_plain_detector,
}


# ---- what a tool cannot do here


def _parse(args: list[str], *options: str, **kinds: Any) -> argparse.Namespace:
    """Some options of a tool, read as argparse reads them there; the rest is left alone."""
    parser = argparse.ArgumentParser(add_help=False)
    for option in options:
        parser.add_argument(option, **kinds)
    return parser.parse_known_args(args)[0]


def _check_benchmark(args: list[str]) -> list[str]:
    import torch

    if _parse(args, '--task').task == 'inference' and not torch.cuda.is_available():
        raise CASTError(
            'benchmark of mmdet measures inference on CUDA alone, and there is no CUDA device: use '
            'mmcast benchmark CONFIG,CHECKPOINT, which measures on a CPU too'
        )
    return args


def _check_browse_dataset(args: list[str]) -> list[str]:
    """Without a display it would wait two seconds for each image, for nobody."""
    import matplotlib.pyplot as plt

    if plt.get_backend().lower() != 'agg' or '--not-show' in args:
        return args
    if _parse(args, '--output-dir').output_dir is None:
        raise CASTError('browse_dataset of mmdet finds no display here: give --output-dir FOLDER')
    return [*args, '--not-show']


def _check_test_robustness(args: list[str]) -> list[str]:
    if _parse(args, '--out').out is None:
        raise CASTError(
            'test_robustness of mmdet reads its results back from --out FILE.pkl: give it'
        )
    severities = _parse(args, '--severities', nargs='+', type=int).severities
    if severities is not None and not {1, 2, 3, 4, 5} <= set(severities):
        print(
            'note: in the mPC of mmdet a severity from 1 to 5 that is not run counts as 0; '
            '*_results.pkl, next to --out, has the metrics of each',
            file=sys.stderr,
        )
    return args


_CHECKS: dict[str, Callable[[list[str]], list[str]]] = {
    'benchmark': _check_benchmark,
    'browse_dataset': _check_browse_dataset,
    'test_robustness': _check_test_robustness,
}
