"""Which of several categories of one name is meant: labeling tools group others under one."""

from collections.abc import Container, Iterable
from dataclasses import dataclass


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
