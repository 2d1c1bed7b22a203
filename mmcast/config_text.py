"""Lays out the text of a config in a hundredth of the time that yapf takes."""

import ast
from collections.abc import Iterator

_WIDTH, _INDENT = 79, 4


def lay_out(text: str) -> str:
    """The same assignments with one line for each item of what does not fit into 79 columns.

    Args:
        text: Python assignments of literals and calls, as MMEngine writes a config. Comments are
            lost.

    Raises:
        SyntaxError: it is no Python.
    """
    lines: list[str] = []
    for statement in ast.parse(text).body:
        whole = ast.unparse(statement)
        if isinstance(statement, ast.Assign) and len(whole) > _WIDTH:
            targets = ''.join(f'{ast.unparse(target)} = ' for target in statement.targets)
            lines += _broken(statement.value, targets, '', 0)
        else:
            lines.append(whole)
    return '\n'.join(lines) + '\n'


def _broken(node: ast.expr, before: str, after: str, indent: int) -> Iterator[str]:
    """The lines of an expression between two texts, on one line if that is short enough."""
    line = f'{" " * indent}{before}{ast.unparse(node)}{after}'
    parts = None if len(line) <= _WIDTH else _parts(node)
    if parts is None:
        yield line
        return
    opening, items, closing = parts
    yield f'{" " * indent}{before}{opening}'
    for prefix, item in items:
        yield from _broken(item, prefix, ',', indent + _INDENT)
    yield f'{" " * indent}{closing}{after}'


def _parts(node: ast.expr) -> tuple[str, list[tuple[str, ast.expr]], str] | None:
    """What an expression opens with, its items with what stands before each, and how it is closed;
    None if it has none.
    """
    items: list[tuple[str, ast.expr]] = []
    if isinstance(node, ast.Call):
        items = [('', argument) for argument in node.args]
        items += [(f'{each.arg}=' if each.arg else '**', each.value) for each in node.keywords]
        return (f'{ast.unparse(node.func)}(', items, ')') if items else None
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values)
        items = [(f'{ast.unparse(key)}: ' if key else '**', value) for key, value in pairs]
        return ('{', items, '}') if items else None
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        brackets = {ast.List: ('[', ']'), ast.Tuple: ('(', ')'), ast.Set: ('{', '}')}
        opening, closing = brackets[type(node)]
        items = [('', element) for element in node.elts]
        return (opening, items, closing) if items else None
    return None
