"""The environment check: its judgements on made-up machines, and its command line on real and faked
ones.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mmcast.environment import NOTE, OK, TESTED, WRONG, Machine, check, look, to_type

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / 'tools' / 'check_env.py'
GOOD = Machine(
    versions={**TESTED, 'pycocotools': '2.0.11', 'mmcast': '0.1.0'},
    torchvision_needs='2.14.1',
    gpu='one',
    cores=2,
    memory_gb=24.0,
)
UPSTREAM = {
    **{name: version for name, version in GOOD.versions.items() if 'onedl' not in name},
    'torch': '2.1.0',
    'torchvision': '0.16.0',
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmdet': '3.3.0',
    'mmpretrain': '1.2.0',
    'openmim': '0.3.9',
}


def with_versions(**changes: str | None) -> Machine:
    """GOOD with other versions ('_' for '-'); None uninstalls."""
    versions = {
        **GOOD.versions,
        **{name.replace('_', '-'): version for name, version in changes.items()},
    }
    return replace(GOOD, versions={name: version for name, version in versions.items() if version})


def wrong(machine: Machine):
    return [finding for finding in check(machine).findings if finding.status == WRONG]


def test_the_pins_are_those_of_the_requirements():
    lines = (ROOT / 'requirements' / 'mminstall.txt').read_text().splitlines()
    assert dict(line.split('==') for line in lines if not line.startswith('#')) == TESTED


def test_the_tested_stack_has_nothing_to_say_but_the_operators():
    report = check(GOOD)
    assert report.ok and to_type(report) == []
    assert [finding.name for finding in report.findings if finding.status != OK] == [
        'mmcv operators'
    ]


def test_compiled_operators_are_told_from_the_stand_in():
    found = {row.name: row for row in check(replace(GOOD, compiled_ops=True)).findings}[
        'mmcv operators'
    ]
    assert (found.status, found.found) == (OK, 'compiled')


def test_a_local_build_of_torch_counts_as_tested():
    assert check(with_versions(torch='2.14.1+cpu', torchvision='0.29.1+cpu')).ok


@pytest.mark.parametrize(
    'changes, name, command',
    [
        (dict(torch=None), 'torch', 'pip install torch==2.14.1'),
        (dict(onedl_mmdetection=None), 'mmdet', 'pip install onedl-mmdetection==3.4.5'),
        (
            dict(onedl_mmdetection='3.4.6'),
            'onedl-mmdetection',
            'pip install onedl-mmdetection==3.4.5',
        ),
        (
            dict(onedl_mmdetection='3.5.1'),
            'onedl-mmdetection',
            'pip install onedl-mmdetection==3.4.5',
        ),
        (
            dict(onedl_mmcv='1.7.2'),
            'mmcv',
            'pip uninstall -y onedl-mmcv && pip install onedl-mmcv==2.3.6',
        ),
        (
            dict(mmcv='2.1.0'),
            'mmcv',
            'pip uninstall -y onedl-mmcv mmcv && pip install onedl-mmcv==2.3.6',
        ),
        (dict(transformers='5.1.0'), 'transformers', 'pip install transformers==4.57.6'),
        (dict(transformers='4.53.3'), 'transformers', 'pip install transformers==4.57.6'),
        (dict(faster_coco_eval=None), 'faster-coco-eval', 'pip install faster-coco-eval==1.8.0'),
        (dict(pycocotools=None), 'pycocotools', 'pip install pycocotools'),
        (dict(mmcast=None), 'mmcast', 'pip install -e . (in the repository)'),
    ],
)
def test_each_trap_is_named_with_its_cure(changes, name, command):
    machine = with_versions(**changes)
    (finding,) = wrong(machine)
    assert (finding.name, finding.cure) == (name, command)
    assert to_type(check(machine)) == [command]


def test_a_version_that_is_only_untested_is_a_note():
    report = check(with_versions(onedl_mmengine='0.10.13'))
    assert report.ok
    assert next((row.name, row.problem) for row in report.findings if row.status == NOTE) == (
        'onedl-mmengine',
        'tested with 0.10.12',
    )


def test_torchvision_for_another_torch_is_wrong():
    (finding,) = wrong(replace(GOOD, torchvision_needs='2.13.0'))
    assert finding.problem == 'does not fit torch 2.14.1'
    assert finding.cure == 'pip install torch==2.14.1 torchvision==0.29.1'


def test_a_torch_that_does_not_import_is_wrong():
    (finding,) = wrong(
        replace(GOOD, torch_error='OSError: libcudart.so.13: cannot open shared object file')
    )
    assert 'libcudart' in finding.found and finding.cure.startswith(
        'pip install --force-reinstall torch=='
    )


def test_an_old_python_is_wrong():
    (finding,) = wrong(replace(GOOD, python=(3, 9, 2)))
    assert finding.name == 'Python'


@pytest.mark.parametrize(
    'changes, problem',
    [
        ({}, 'mmpretrain does not import with transformers 4.56'),
        ({'mmcv': '2.2.0', 'transformers': '4.49.0'}, 'refuses mmcv 2.2'),
        ({'torch': '2.7.1', 'transformers': '4.49.0'}, 'cannot load its own checkpoints'),
    ],
)
def test_traps_of_an_upstream_environment(changes, problem):
    machine = replace(GOOD, versions={**UPSTREAM, **changes}, torchvision_needs=None)
    assert any(problem in finding.problem for finding in wrong(machine))


def test_an_upstream_environment_is_a_note_where_it_works():
    versions = {**UPSTREAM, 'onedl-mmpretrain': '1.3.6'}
    del versions['mmpretrain']
    report = check(replace(GOOD, versions=versions, torchvision_needs='2.1.0'))
    upstream = [row.name for row in report.findings if 'upstream' in row.found]
    assert report.ok and upstream == ['mmengine', 'mmcv', 'mmdet', 'mim']


def test_missing_packages_are_installed_by_one_command():
    bare = replace(GOOD, versions={}, torchvision_needs=None)
    editable, install = to_type(check(bare))
    assert editable.startswith('pip install -e .')
    needed = {f'{name}=={version}' for name, version in TESTED.items() if name != 'onedl-mim'}
    assert needed < set(install.split())


def test_little_memory_is_noted():
    row = check(replace(GOOD, memory_gb=3.0)).findings[-1]
    assert (row.name, row.status) == ('memory', NOTE)


def test_looking_finds_this_environment():
    machine = look()
    assert machine.versions['pytest'] == pytest.__version__
    assert (
        machine.python == sys.version_info[:3]
        and machine.torch_error is None
        and machine.cores >= 1
    )


# ---- the command line


def run_tool(
    *args: str, path: Path = ROOT, flags: tuple[str, ...] = ()
) -> subprocess.CompletedProcess:
    environment = dict(os.environ, PYTHONPATH=str(path))
    return subprocess.run(
        [sys.executable, *flags, str(TOOL), *args], env=environment, capture_output=True, text=True
    )


def test_the_tool_shows_a_table():
    done = run_tool()
    assert not done.stderr and 'mmcv operators' in done.stdout
    assert done.returncode == (0 if check(look()).ok else 1)


def test_the_tool_in_an_environment_without_any_package():
    done = run_tool(flags=('-S',))
    assert done.returncode == 1 and not done.stderr
    assert 'torch               not installed' in done.stdout
    assert 'onedl-mmdetection==3.4.5' in done.stdout.split('To type:')[1]


def test_the_tool_in_a_broken_environment(tmp_path):
    for name, version in [('mmdet', '3.3.0'), ('transformers', '5.0.0')]:
        folder = tmp_path / f'{name}-{version}.dist-info'
        folder.mkdir()
        (folder / 'METADATA').write_text(
            f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
        )
    done = run_tool('--json', path=tmp_path)
    report = json.loads(done.stdout)
    problems = [row['problem'] for row in report['checks'] if row['status'] == WRONG]
    assert done.returncode == 1 and not report['ok']
    assert '2 distributions own the module mmdet' in problems
    assert 'mmpretrain does not import with 5 and later' in problems
