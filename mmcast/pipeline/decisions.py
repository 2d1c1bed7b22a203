"""Values that a step chooses from the data, each with the reason, as a table."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmcast.coco.data_facts import DataFacts
from mmcast.coco.instances import LEAST_DETECTIONS
from mmcast.errors import CASTError
from mmcast.files import write_atomically

GIVEN = 'given by you'


def tenth_more(number: int) -> int:
    """A tenth more, in tens, upwards."""
    return -(-number * 11 // 100) * 10


@dataclass(frozen=True)
class Decision:
    """A row of the table."""

    setting: str
    value: Any
    why: str


@dataclass
class Decisions:
    """The rows so far. What a person gave wins over what a rule says.

    Attributes:
        given: Values of variables, None for those that are left to the rules.
    """

    given: Mapping[str, Any]
    rows: list[Decision] = field(default_factory=list)

    def add(self, setting: str, value: Any, why: str) -> Any:
        """Notes a value that is not a person's to give."""
        self.rows.append(Decision(setting, value, why))
        return value

    def choose(
        self,
        setting: str,
        rule: Callable[[], tuple[Any, str]],
        least: float = 1,
        divisor: int = 1,
    ) -> Any:
        """A person's number, brought to the next multiple of ``divisor``, or a rule's value."""
        given = self.given.get(setting)
        if given is None:
            return self.add(setting, *rule())
        value = number(given, setting, least, optional=True)
        if divisor > 1 and value % divisor:
            why = f'{GIVEN} as {value}, brought to a multiple of {divisor}'
            return self.add(setting, -(-value // divisor) * divisor, why)
        return self.add(setting, value, GIVEN)

    def max_dets(self, facts: DataFacts) -> int:
        """How many predictions of a class in an image AP counts: COCO's number, unless an image has
        more objects.
        """
        if facts.most_instances <= LEAST_DETECTIONS:
            return LEAST_DETECTIONS
        why = (
            f'a tenth more than the {facts.most_instances} objects of the fullest image, in tens; '
            f'COCO counts {LEAST_DETECTIONS} predictions of a class in an image'
        )
        return self.add('max_dets', tenth_more(facts.most_instances), why)

    def describe(self, facts: DataFacts) -> None:
        """Rows on what the data are."""
        self.add(
            'images',
            f'{facts.labeled} labeled, {facts.val} validation, {facts.unlabeled} unlabeled',
            f'short side {facts.short_side:.0f} px, {facts.aspect:.2f} times as long (medians); '
            f'{facts.portrait:.0%} portrait',
        )
        self.add(
            'objects',
            f'{sum(facts.instances.values())} labeled',
            f'{facts.median_instances:g} in an image, at most {facts.most_instances}; side '
            f'{facts.median_side * facts.short_side:.0f} px, of small ones (10th percentile) '
            f'{facts.small_side * facts.short_side:.0f} px; {facts.empty} images without any',
        )

    def write(self, folder: Path, outputs: Mapping[str, Any], facts: DataFacts) -> str:
        """Prints the table, stores it as ``plan.txt`` and all of it as ``plan.json``; the table's
        path.
        """
        rows = [vars(row) for row in self.rows]
        lines = table_lines(rows)
        print('\n'.join(lines))
        content = dict(facts=facts.to_dict(), **outputs, decisions=rows)
        write_atomically(folder / 'plan.json', json.dumps(content, indent=1))
        path = folder / 'plan.txt'
        write_atomically(path, '\n'.join(lines) + '\n')
        return str(path)


def number(value: Any, setting: str, least: float = 1, optional: bool = False) -> int | float:
    """A number, which a command line gives as text.

    Args:
        value: To be read.
        setting: Name of the variable, for the message.
        least: Smallest value; a float where fractions will do.
        optional: Whether a rule decides where it is None.

    Raises:
        CASTError: It is none, or below ``least``.
    """
    try:
        read = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        read = math.nan
    whole = isinstance(least, float) or read.is_integer()
    if not (read >= least and whole) or math.isinf(read):
        kind = 'a number' if isinstance(least, float) else 'a whole number'
        other = ', or None' if optional else ''
        raise CASTError(f'variables.{setting} is {kind} from {least:g}{other}, not {value}')
    return read if isinstance(least, float) else int(read)


def table_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows of decisions as aligned text."""
    cells = [(row['setting'], str(row['value']), row['why']) for row in rows]
    first, second = (max(len(row[i]) for row in [*cells, ('setting', 'value')]) for i in (0, 1))
    return [
        f'{setting:{first}}  {value:{second}}  {why}'.rstrip()
        for setting, value, why in [('setting', 'value', 'why'), *cells]
    ]
