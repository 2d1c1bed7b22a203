"""What a check found, for people and for programs."""

import dataclasses
from collections import Counter
from dataclasses import dataclass, field

from mmcast.coco.checks.pixels import Pixels
from mmcast.coco.checks.statistics import describe_statistics
from mmcast.coco.findings import FIXES, KINDS, NOTES, Finding, printable
from mmcast.coco.lists import ImageEntry, Lists
from mmcast.coco.scanner import AnnotationFile

_SHOWN = 10  # findings of a kind in the summary


@dataclass
class CheckReport:
    """What a check found.

    Args:
        ann_file: the COCO JSON.
        lists: its images and categories.
        crowd_as_instances: whether its groups (``iscrowd`` 1) are taken for single objects.
        findings: mistakes and notes.
        statistics: see ``count_instances``, None if the file could not be read that far.
        labels: the COCO JSON, None likewise.
        categories: names of its usable categories by the whole number that each goes by.
        pixels: what was read of image files, by path.
    """

    ann_file: str
    lists: Lists
    crowd_as_instances: bool = False
    findings: list[Finding] = field(default_factory=list)
    statistics: dict | None = None
    labels: AnnotationFile | None = None
    categories: dict = field(default_factory=dict)
    pixels: dict[str, Pixels] = field(default_factory=dict)

    @property
    def images(self) -> list[ImageEntry]:
        """Its usable images."""
        return list(self.lists.images.values())

    @property
    def problems(self) -> int:
        """How many findings are more than a note."""
        return sum(finding.kind not in NOTES for finding in self.findings)

    def by_kind(self) -> dict[str, list[Finding]]:
        """The findings, problems before notes, in the order of ``FIXES``."""
        order = sorted(FIXES, key=lambda kind: kind in NOTES)
        kinds: dict[str, list[Finding]] = {kind: [] for kind in order}
        for finding in self.findings:
            kinds[finding.kind].append(finding)
        return {kind: found for kind, found in kinds.items() if found}

    def summary(self) -> str:
        """Lines for people: statistics, the first findings of every kind with their fix, the
        verdict.
        """
        lines = describe_statistics(self.statistics) if self.statistics else []
        for kind, found in self.by_kind().items():
            lines += ['', f'{_level(kind)} {kind}: {len(found)}']
            lines += [f'  {self.line(finding)}' for finding in found[:_SHOWN]]
            if len(found) > _SHOWN:
                lines.append(f'  and {len(found) - _SHOWN} more')
            lines.append(f'  -> {FIXES[kind]}')
        verdict = f'problems: {self.problems}' if self.problems else 'clean'
        return '\n'.join([*lines, '', f'{printable(self.ann_file)}: {verdict}'])

    def line(self, finding: Finding) -> str:
        """A finding as text; its source is named if it is another file than the checked one."""
        here = finding.source in (self.ann_file, finding.file)
        return finding.line() if here else f'{printable(finding.source)}: {finding.line()}'

    def to_dict(self) -> dict:
        """All findings and the statistics, for JSON."""
        counts = Counter(finding.kind for finding in self.findings)
        return dict(
            ann_file=self.ann_file,
            clean=not self.problems,
            problems=self.problems,
            counts=dict(counts),
            cures={kind: FIXES[kind] for kind in counts},
            statistics=self.statistics,
            findings=[
                dict(dataclasses.asdict(finding), note=finding.kind in NOTES)
                for finding in self.findings
            ],
        )


def _level(kind: str) -> str:
    """The word before a kind: what is mended is not to be worried about."""
    level = KINDS[kind].level
    return level if level in ('mended', 'note') else 'problem'
