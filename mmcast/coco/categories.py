"""Which of several categories of one name is meant (labeling tools group others under one), and the
words that a teacher is asked for a class with.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mmcast.errors import CASTError
from mmcast.spelling import hint


@dataclass(frozen=True)
class Twins:
    """Several categories of one name.

    Args:
        name: of each of them.
        ids: of them all, in the order of the file.
        used: of those that have annotations.
    """

    name: str
    ids: list
    used: list

    @property
    def clash(self) -> str:
        """What is wrong if several have annotations, '' otherwise."""
        if len(self.used) < 2:
            return ''
        ids = ', '.join(map(str, self.used))
        return f'the categories {ids} are all called {self.name} and have annotations'

    @property
    def kept(self) -> int | str:
        """The one that is meant: that with annotations, else the first."""
        return (self.used or self.ids)[0]

    @property
    def dropped(self) -> list:
        """The ids of the others."""
        return [own for own in self.ids if own != self.kept]


def find_twins(categories: Iterable[tuple[int | str, str]], used: Container) -> list[Twins]:
    """The names that several categories have.

    Args:
        categories: id and name of each, ids being unique.
        used: ids of those that have annotations.
    """
    by_name: dict[str, list] = {}
    for own, name in categories:
        by_name.setdefault(name, []).append(own)
    return [
        Twins(name, ids, [own for own in ids if own in used])
        for name, ids in by_name.items()
        if len(ids) > 1
    ]


def texts_of_classes(
    classes: Sequence[str], prompts: Mapping[str, str | Sequence[str]] | None = None
) -> list[tuple[str, ...]]:
    """The texts that ask for each class: its own name, or what ``prompts`` has in its place.

    Args:
        classes: Names in the data set's order.
        prompts: Class names to a text, or to several that mean the same.

    Returns:
        At least one text for each class, in the order of ``classes``.

    Raises:
        CASTError: If ``prompts`` names a class that is not there, or has no text for one.
    """
    prompts = dict(prompts or {})
    for name in prompts:
        if name not in classes:
            raise CASTError(f'prompts: no class {name!r}; {hint(name, classes)}')
    found = [prompts.get(name, name) for name in classes]
    texts = [(text,) if isinstance(text, str) else tuple(text) for text in found]
    for name, of_class in zip(classes, texts):
        if not of_class or not all(isinstance(text, str) and text.strip() for text in of_class):
            raise CASTError(f'prompts: class {name!r} needs at least one text, and none empty')
    return texts
