"""The text of a config means what it meant, and is short of lines that nobody can read."""

import ast
from pathlib import Path

import pytest
from mmengine.config import Config

from mmcast.config_text import lay_out

ROOT = Path(__file__).resolve().parents[1]


def test_what_fits_stays_on_one_line():
    assert lay_out("a = dict(b=[1, 2], c=('x',))\n") == "a = dict(b=[1, 2], c=('x',))\n"


def test_what_does_not_has_a_line_for_each_item():
    name, other = 'n' * 40, 'o' * 40
    text = f"a = dict(b='{name}', c=['{other}', dict(d={{'e f': '{name}', 'g': ('{other}', -1)}})])"
    assert (
        lay_out(text)
        == f"""\
a = dict(
    b='{name}',
    c=[
        '{other}',
        dict(
            d={{
                'e f': '{name}',
                'g': ('{other}', -1),
            }},
        ),
    ],
)
"""
    )


def test_a_tuple_of_one_long_item_stays_a_tuple():
    text = f"a = ('{'n' * 90}',)"
    assert ast.dump(ast.parse(lay_out(text))) == ast.dump(ast.parse(text))


@pytest.mark.parametrize('path', ['toy/toy_student_transfer.py', 'cast_ade20k.py'])
def test_a_config_is_read_back_as_it_was(path, tmp_path):
    config = Config.fromfile(str(ROOT / 'configs' / path))
    config.dump(tmp_path / 'dumped.py')
    text = (tmp_path / 'dumped.py').read_text()
    assert Config.fromfile(str(tmp_path / 'dumped.py')).to_dict() == config.to_dict()
    assert max(map(len, text.splitlines())) < 200 and text == config.pretty_text


def test_a_config_may_ask_for_the_text_as_it_is():
    config = Config(dict(a=dict(b=1)), format_python_code=False)
    assert config.pretty_text == 'a=dict(\n    b=1)'
