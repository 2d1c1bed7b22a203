"""What the scripts in benchmarks/, which no test runs whole, take from one another and from mmcast
is there.
"""

import ast
import importlib
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).resolve().parent.parent / 'benchmarks').glob('*.py'))


def names_in(script: Path) -> set[str]:
    """What a script has at its top level."""
    found = set()
    for node in ast.parse(script.read_text(encoding='utf-8')).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.asname or alias.name for alias in node.names}
        else:
            found |= {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
    return found


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_imports_what_is_there(script):
    siblings = {path.stem: path for path in SCRIPTS}
    for node in ast.walk(ast.parse(script.read_text(encoding='utf-8'))):
        if not isinstance(node, ast.ImportFrom):
            continue
        wanted = {alias.name for alias in node.names}
        if node.module in siblings:
            assert wanted <= names_in(siblings[node.module]), node.module
        elif node.module.partition('.')[0] == 'mmcast':
            module = importlib.import_module(node.module)
            for name in wanted:
                assert hasattr(module, name) or importlib.import_module(f'{node.module}.{name}')
