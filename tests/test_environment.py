"""The environment check: its judgements on made-up machines, and its command line on real and faked
ones.
"""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mmcast import environment
from mmcast.environment import (
    NEEDED,
    NOTE,
    OK,
    TESTED,
    UPSTREAM,
    WRONG,
    Machine,
    check,
    look,
    read_requirements,
    to_type,
)

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / 'tools' / 'check_env.py'
OTHERS = {  # satisfy requirements/runtime.txt
    **{name: spec.removeprefix('>=').split(',')[0] or '1.0' for name, spec in NEEDED.items()},
    'opencv-python-headless': '4.12.0.88',
    'mmcast': '0.1.0',
    'setuptools': '80.9.0',
    'numpy': '2.3.5',
}
GOOD = Machine(
    versions={**OTHERS, **TESTED}, torchvision_needs='2.14.1', gpu='one', cores=2, memory_gb=24.0
)
GOOD_UPSTREAM = replace(GOOD, versions={**OTHERS, **UPSTREAM})


def with_versions(**changes: str | None) -> Machine:
    """GOOD with other versions ('_' for '-'); None uninstalls."""
    versions = {
        **GOOD.versions,
        **{name.replace('_', '-'): version for name, version in changes.items()},
    }
    return replace(GOOD, versions={name: version for name, version in versions.items() if version})


def wrong(machine: Machine):
    return [finding for finding in check(machine).findings if finding.status == WRONG]


def test_a_requirement_is_a_name_and_its_specifier():
    assert read_requirements('runtime')['transformers'] == '>=4.57,<6'
    assert read_requirements('runtime')['pycocotools'] == ''
    assert read_requirements('mminstall')['onedl-mmdetection'] == '==3.4.5'


def test_the_python_versions_are_those_that_the_package_declares():
    declared = [(ROOT / name).read_text() for name in ('setup.py', 'pyproject.toml')]
    (oldest,) = re.findall(
        r"""requires[_-]python\s*=\s*['"]>=([\d.]+)|python_requires='>=([\d.]+)""",
        ''.join(declared),
    )
    assert '.'.join(map(str, environment.PYTHON[0])) == ''.join(oldest)


def imported_modules(folder: Path) -> set[str]:
    """Top-level modules that the files of a folder import, at any depth of their code."""
    found = set()
    for path in folder.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split('.')[0])
    return found


def test_every_import_is_declared():
    declared = {
        name
        for file in ('runtime', 'mminstall', 'deploy', 'encoders')
        for name in read_requirements(file)
    }
    owners = {
        module: {environment._normalise(name) for name in names}
        for module, names in importlib.metadata.packages_distributions().items()
    }
    if 'onedl-mmengine' not in look().versions:
        declared |= set(read_requirements('upstream'))
    imported = imported_modules(ROOT / 'mmcast') | imported_modules(ROOT / 'tools')
    asked_for = {'imagecorruptions'}  # a line says what to install where it is missing
    foreign = imported - sys.stdlib_module_names - asked_for - {'mmcast'}
    assert {'torch', 'filelock', 'mmdet', 'cv2'} <= foreign
    assert not {module for module in foreign if not owners.get(module, set()) & declared}


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
        (dict(transformers='6.0.0'), 'transformers', 'pip install transformers==5.24.0'),
        (dict(transformers='4.53.3'), 'transformers', 'pip install transformers==5.24.0'),
        (dict(faster_coco_eval=None), 'faster-coco-eval', 'pip install faster-coco-eval==1.8.0'),
        (dict(filelock='3.29.1'), 'filelock', 'pip install "filelock>=3.30"'),
        (dict(opencv_python_headless=None), 'OpenCV', 'pip install opencv-python'),
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


@pytest.mark.parametrize(
    'python, status',
    [((3, 10, 13), WRONG), ((3, 11, 0), OK), ((3, 13, 9), OK), ((3, 14, 0), NOTE)],
)
def test_python_is_judged_by_what_is_supported(python, status):
    assert check(replace(GOOD, python=python)).findings[0].status == status


def test_upstreams_set_has_nothing_to_say_but_the_operators():
    report = check(GOOD_UPSTREAM)
    assert report.ok
    assert {row.name for row in report.findings if row.status == NOTE} == {'mim', 'mmcv operators'}


def test_upstreams_mmdet_refuses_a_newer_mmcv():
    machine = replace(GOOD_UPSTREAM, versions={**GOOD_UPSTREAM.versions, 'mmcv-lite': '2.2.0'})
    (finding,) = wrong(machine)
    assert 'refuses mmcv 2.2' in finding.problem


@pytest.mark.parametrize('version', ['81.0.0', None])
def test_upstreams_mmengine_wants_pkg_resources(version):
    versions = {**GOOD_UPSTREAM.versions, 'setuptools': version}
    report = check(
        replace(
            GOOD_UPSTREAM, versions={name: number for name, number in versions.items() if number}
        )
    )
    assert report.ok
    assert any(row.name == 'setuptools' and row.status == NOTE for row in report.findings)


def test_another_upstream_version_is_a_note_that_names_both_tested_ones():
    machine = replace(GOOD_UPSTREAM, versions={**GOOD_UPSTREAM.versions, 'mmengine': '0.10.4'})
    row = next(row for row in check(machine).findings if row.name == 'mmengine')
    assert check(machine).ok and row.status == NOTE
    assert row.problem == 'tested with mmengine 0.10.7 and onedl-mmengine 0.10.12'


def test_missing_packages_are_installed_by_one_command():
    bare = replace(GOOD, versions={}, torchvision_needs=None)
    editable, install = to_type(check(bare))
    assert editable.startswith('pip install -e .')
    needed = {f'{name}=={version}' for name, version in TESTED.items()}
    some_configs_alone = ('onedl-mim', 'faster-coco-eval', 'hotcoco', 'peft')
    needed -= {f'{name}=={TESTED[name]}' for name in some_configs_alone}
    needed |= {'"filelock>=3.30"', 'opencv-python'}
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
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(path), str(ROOT)]))
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
    other = 'onedl-mmdetection' if 'mmdet' in look().versions else 'mmdet'
    for name, version in [(other, '3.3.0'), ('transformers', '4.50.0')]:
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
    assert 'mmcast needs >=4.57,<6' in problems


def test_the_commit_of_a_checkout_says_whether_files_were_changed(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ('-c', 'user.name=a', '-c', 'user.email=a@b')
        command = ['git', '-C', str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit():
        environment.source_commit.cache_clear()
        return environment.source_commit()

    monkeypatch.setattr(environment, '_PACKAGE', tmp_path / 'mmcast')
    assert commit() is None
    (tmp_path / 'mmcast').mkdir()
    file = tmp_path / 'mmcast/file.py'
    file.write_text('')
    git('init', '--quiet')
    git('add', '.')
    git('commit', '--quiet', '-m', 'first')
    clean = commit()
    assert clean == git('rev-parse', 'HEAD') and len(clean) == 40
    file.write_text('changed')
    assert environment.source_commit() == clean  # as of the first call
    assert commit() == f'{clean}-dirty'
    environment.source_commit.cache_clear()
