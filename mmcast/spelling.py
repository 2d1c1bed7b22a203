"""Names that are not known, and the known ones that may be meant."""

import difflib
import re
from collections.abc import Iterable, Sequence


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that may be meant, or None."""
    lower = {other.lower(): other for other in known}
    similar = difflib.get_close_matches(name.lower(), lower, 1)
    return lower[similar[0]] if similar else None


def hint(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that is not known: the nearest one, or all."""
    known = list(known)
    similar = nearest(name, known)
    if similar:
        return f'did you mean {similar}?'
    return f'there are {", ".join(known)}' if known else 'there are none'


def misspelt(name: str, known: Iterable[str]) -> str | None:
    """The name that one is a misspelling of, or None.

    Stricter than :func:`hint`, for places where new names are welcome: word by word, with at most
    two letters wrong. ``layer1`` and ``layer2``, ``labeled`` and ``unlabeled`` are two names.
    """
    return next((other for other in known if _is_misspelling(name, other)), None)


def find_misspelt(names: Iterable[str], known: Sequence[str]) -> list[str]:
    """What to do about names that nothing reads and that are misspelt known ones, see
    :func:`misspelt`; a line for each.
    """
    similar = {name: misspelt(name, known) for name in names if name not in known}
    return [
        f'{name} is not used; write {other}, or another name'
        for name, other in similar.items()
        if other
    ]


def _is_misspelling(name: str, other: str) -> bool:
    if name == other or re.sub(r'\d', '', name) == re.sub(r'\d', '', other):
        return False
    name, other = name.lower(), other.lower()
    if name.replace('_', '') == other.replace('_', ''):
        return True
    words = name.split('_'), other.split('_')
    return len(words[0]) == len(words[1]) and all(map(_is_slip, *words))


def _is_slip(word: str, other: str) -> bool:
    """Whether two words are one, up to a slip of the fingers."""
    if word == other:
        return True
    matcher = difflib.SequenceMatcher(None, word, other, autojunk=False)
    wrong = sum(
        max(end - start, other_end - other_start)
        for kind, start, end, other_start, other_end in matcher.get_opcodes()
        if kind != 'equal'
    )
    same_start = word[:1] == other[:1]
    return min(len(word), len(other)) > 2 and matcher.ratio() >= 0.7 and wrong <= 1 + same_start
