"""What a person typed as the value of an option: text, numbers, lists.

Two readings. :func:`read_value` reads as MMEngine's ``DictAction`` does, but loses no space and
honours quotes; it is for MMEngine's configs, where a number may replace a text. :func:`read_like`
takes the type of the value that is replaced, if there is one; it is for a pipeline's own settings.
"""

import re
from typing import Any

from mmcast.errors import CASTError

# Of a pipeline config; the group is the name.
TEMPLATE = re.compile(r'\{([A-Za-z_]\w*(?:\.\w+)*)\}')
_BRACKETS = {'[': ']', '(': ')'}
_QUOTES = '"\''
_BOOLEANS = {'true': True, 'false': False}
NO_DEFAULT = object()


class Typed(str):
    """The value of an option as it was typed; what it means depends on the option."""


def read_value(text: str) -> Any:
    """A number, ``True``, ``False``, ``None``, a list ``a,b`` or ``[a,b]``, a tuple ``(a,b)``, or a
    text. What stands in quotes is text.

    Raises:
        CASTError: brackets or quotes that do not match, in a list.
    """
    text = text.strip()
    if _is_quoted(text):
        return text[1:-1]
    items = split_list(text)
    if items is not None:
        values = [read_value(item) for item in items]
        return tuple(values) if text[0] == '(' and _is_bracketed(text) else values
    if text == 'None':
        return None
    if text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text


def read_like(text: str, default: Any, name: str) -> Any:
    """The value in the type of the one that it replaces.

    Args:
        text: as typed. A template such as ``{data.val}`` and ``None`` are what they say.
        default: a text or None: the value is text, exactly. A list: it is split at commas, and its
            items are texts where those of the default are. A number: it is one. ``NO_DEFAULT``: it
            is read as by :func:`read_value`.
        name: of the option, whose last part ``classes`` makes it a list of texts.

    Raises:
        CASTError: the text is no such value, or empty, as that of a shell's variable that is not
            set.
    """
    if text == 'None':
        return None
    if TEMPLATE.fullmatch(text):
        return str(text)
    if name.rpartition('.')[2] == 'classes':
        return read_texts(text, name)
    if default is NO_DEFAULT:
        return read_value(text)
    if not text.strip():
        raise CASTError(f'{name}= has no value; write {name}=None for none')
    if isinstance(default, (list, tuple)):
        if default and all(isinstance(item, str) for item in default):
            return type(default)(read_texts(text, name))
        value = read_value(text)
        return type(default)(value if isinstance(value, (list, tuple)) else [value])
    if isinstance(default, dict):
        raise CASTError(f'{name} has settings of its own: give {name}.KEY=VALUE')
    if isinstance(default, (bool, int, float)):
        return _number(text, default, name)
    return text[1:-1] if _is_quoted(text) else str(text)


def read_texts(text: str, name: str) -> list[str]:
    """The texts of a list, split at commas outside of quotes; brackets around it may be left out.

    Raises:
        CASTError: one of them is empty.
    """
    items = split_list(text.strip())
    texts = [text.strip()] if items is None else items
    if not texts or not all(texts):
        raise CASTError(f'{name}={text}: a name is empty; write {name}=NAME,NAME')
    return [item[1:-1] if _is_quoted(item) else item for item in texts]


def split_list(text: str) -> list[str] | None:
    """The items of ``a,b``, ``[a,b]`` or ``(a,b)``, without spaces around them; None for anything
    else. A comma may follow the last.

    Raises:
        CASTError: brackets or quotes that do not match.
    """
    bracketed = _is_bracketed(text)
    inner = text[1:-1] if bracketed else text
    ends = _commas(inner)
    if not bracketed and not ends:
        return None
    items = [
        inner[start:end].strip()
        for start, end in zip([0, *(end + 1 for end in ends)], [*ends, len(inner)])
    ]
    if not items[-1]:
        items.pop()
    return items


def _number(text: str, default: Any, name: str) -> Any:
    value = read_value(text)
    if isinstance(default, bool):
        if isinstance(value, bool) or value in (0, 1):
            return bool(value)
        raise CASTError(f'{name}={text}: give True or False')
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        whole = isinstance(default, int) and float(value).is_integer()
        return int(value) if whole else value  # 3e2 is 300
    raise CASTError(f'{name}={text}: give a number, such as {default}')


def _is_quoted(text: str) -> bool:
    """Whether one pair of quotes encloses a text."""
    return (
        len(text) > 1 and text[0] in _QUOTES and text[-1] == text[0] and text[0] not in text[1:-1]
    )


def _is_bracketed(text: str) -> bool:
    """Whether one pair of brackets encloses a text; not so ``(a,b),(c,d)``."""
    return (
        len(text) > 1
        and _BRACKETS.get(text[0]) == text[-1]
        and all(depth > 0 for _, _, depth in _scan(text[:-1]))
    )


def _commas(text: str) -> list[int]:
    """Positions of the commas outside of brackets and quotes."""
    if ',' not in text:
        return []
    found, depth = [], 0
    for position, character, depth in _scan(text):
        if character == ',' and depth == 0:
            found.append(position)
    if depth:
        raise CASTError(f'{text}: brackets or quotes do not match; put a text into quotes')
    return found


def _scan(text: str) -> list[tuple[int, str, int]]:
    """Position, character and depth of each character; a quote at the start of an item opens a
    text, in which brackets and commas mean nothing and the depth is one more.
    """
    scanned, depth, quote, fresh = [], 0, '', True
    for position, character in enumerate(text):
        if quote:
            quote = '' if character == quote else quote
        elif character in _QUOTES and fresh:
            quote = character
        elif character in _BRACKETS:
            depth += 1
        elif character in _BRACKETS.values():
            depth -= 1
        fresh = not quote and (character in ',[(' or (fresh and character == ' '))
        scanned.append((position, character, depth + bool(quote)))
    return scanned
