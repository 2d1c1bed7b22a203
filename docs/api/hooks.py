"""Hooks of mkdocs: the arguments that pages of this folder show are documented, roles become code.

An argument is documented by an entry under ``Args``, or where the docstring has its name in
backticks. A class is asked about ``__init__``, and about its methods unless it has a base: what a
method of mmdet's or torch's takes is documented there.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
from mkdocs.exceptions import PluginError

_API = Path(__file__).resolve().parent
_ROLE = re.compile(r':(?:attr|class|data|func|meth|mod):(?=<code>)')


def on_pre_build(**_: Any) -> None:
    """Fails the build with a list of the undocumented arguments."""
    package = griffe.load(
        'mmcast',
        search_paths=[_API.parents[1]],
        docstring_parser='google',
        allow_inspection=False,
    )
    missing = []
    for page in sorted(_API.glob('*.md')):
        for name in re.findall(
            r'^::: mmcast\.(\S+)', page.read_text(encoding='utf-8'), re.MULTILINE
        ):
            missing += _undocumented(package[name])
    if missing:
        raise PluginError('undocumented arguments:\n' + '\n'.join(missing))


def on_page_content(html: str, **_: Any) -> str:
    """Shows ``:class:`Name``` of a docstring as code."""
    return _ROLE.sub('', html)


def _undocumented(shown: griffe.Object) -> Iterator[str]:
    if shown.is_function:
        yield from _missing(shown, shown)
    elif shown.is_class and '__init__' in shown.members:
        yield from _missing(shown, shown.members['__init__'])
    derived = shown.is_class and any(str(base) != 'Protocol' for base in shown.bases)
    for name, member in shown.members.items():
        if name.startswith('_') or member.is_alias or not member.has_docstring:
            continue
        if member.is_class or (member.is_function and not derived):
            yield from _undocumented(member)


def _missing(shown: griffe.Object, function: griffe.Function) -> Iterator[str]:
    text = ''.join(each.docstring.value for each in {shown, function} if each.docstring)
    for parameter in function.parameters:
        name, variadic = parameter.name, str(parameter.kind or '').startswith('variadic')
        if name in ('self', 'cls') or variadic:
            continue
        if not re.search(rf'`{name}`|^ *{name}:', text, re.MULTILINE):
            yield f'{shown.path}: {name}'
