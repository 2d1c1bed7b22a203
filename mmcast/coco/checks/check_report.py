"""What a check found, for people and for programs."""

import dataclasses
from collections import Counter
from dataclasses import dataclass, field

from mmcast.coco.checks.findings import FIXES, NOTES, Finding, printable
from mmcast.coco.checks.labels import ImageEntry
from mmcast.coco.checks.pixels import Pixels
from mmcast.coco.checks.scanner import AnnotationFile
from mmcast.coco.checks.statistics import describe_statistics

_SHOWN = 10  # findings of a kind in the summary


@dataclass
class CheckReport:
    """What a check found.

    Args:
        ann_file: the COCO JSON.
        findings: mistakes and notes.
        statistics: see ``count_instances``, None if the file could not be read that far.
        labels: the COCO JSON, None likewise.
        images: its usable images.
        categories: names of its usable categories by id.
        pixels: what was read of image files, by path.
    """

    ann_file: str
    findings: list[Finding] = field(default_factory=list)
    statistics: dict | None = None
    labels: AnnotationFile | None = None
    images: list[ImageEntry] = field(default_factory=list)
    categories: dict = field(default_factory=dict)
    pixels: dict[str, Pixels] = field(default_factory=dict)

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
            lines += ['', f'{"note" if kind in NOTES else "problem"} {kind}: {len(found)}']
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
