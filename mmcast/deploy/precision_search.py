"""Which 8-bit file of a student is fast, and loses no more mask AP than its user allows?"""

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmcast.data.config_data import check_config_data
from mmcast.deploy.accuracy import mask_ap, predictor
from mmcast.deploy.agreement import Agreement, compare_instances, read_test_images
from mmcast.deploy.onnx_export import Draft, quiet
from mmcast.deploy.onnx_student import OnnxStudent
from mmcast.deploy.quantization import CalibrationImages
from mmcast.errors import CASTError
from mmcast.files import replacing, write_atomically

#: What stays in fp32 of the statically quantised files that are tried, by the parts of
#: :data:`mmcast.deploy.quantization.PARTS`.
MIXES = (
    (),
    ('last layers',),
    ('queries',),
    ('queries', 'last layers'),
    ('encoder',),
    ('pixel decoder', 'last layers'),
    ('encoder', 'queries', 'last layers'),
    ('pixel decoder', 'queries', 'last layers'),
)
_IMAGES, _RUNS = 2, 5  # timed
_HEADERS = ('file', 'kept in fp32', 'CPU ms per image', 'times fp32', 'mask AP', 'below fp32', 'MB')


@dataclass
class Tried:
    """A file that was tried.

    Attributes:
        name: ``fp32``, ``int8, dynamic`` or ``int8, static``.
        kept: parts of the student in fp32.
        seconds: of one core, per image with everything from the image to its masks.
        speed: how many times as fast as fp32, measured in turns.
        megabytes: of the file.
        ap: mask AP, 0 to 100; None where it was not needed.
    """

    name: str
    kept: Sequence[str] = ()
    seconds: float = 0
    speed: float = 1
    megabytes: float = 0
    ap: float | None = None


@dataclass
class Found:
    """The file that was written, everything that was tried, and how far it agrees with torch."""

    chosen: Tried
    tried: list[Tried]
    agreement: Agreement


def export_fastest(
    draft: Draft,
    calibration: CalibrationImages,
    max_ap_drop: float,
    show: Callable[[str], None] = lambda line: None,
) -> Found:
    """Write the fastest 8-bit file whose mask AP is at most so far below that of fp32.

    AP is that of the config's test set, by its evaluator, with every instance counted. It is
    computed from the fastest file on, until one is good enough. A table of all that was tried is
    written beside the file, :func:`table_file`, also where none is.

    Args:
        draft: of the student.
        calibration: images for static quantisation; the test set's own would flatter it.
        max_ap_drop: in points, of 100.
        show: called with a line for people and, once it is written, the table.

    Raises:
        CASTError: none is good enough and faster than fp32, and no file is written; or the test set
            is not there, or the student has no AP to lose.
    """
    if not max_ap_drop >= 0:
        raise CASTError(f'a loss of {max_ap_drop} mask AP: give a number from 0 on, such as 0.5')
    check_config_data(draft.cfg, ('test_dataloader',))
    with tempfile.TemporaryDirectory() as folder:
        search = _Search(draft, calibration, Path(folder), show)
        chosen = search.fastest(max_ap_drop)
        table = to_table(search.tried, max_ap_drop, chosen)
        write_atomically(table_file(draft.out_file), table)
        show(table)
        if chosen is None:
            raise CASTError(_refusal(search.tried, max_ap_drop, draft.out_file))
        final = search.write(chosen, mask_ap=chosen.ap, mask_ap_fp32=search.tried[0].ap)
        agreement = compare_instances(draft.network, OnnxStudent(final), draft.cfg)
        with replacing(draft.out_file, '.onnx') as temporary:
            shutil.copyfile(final, temporary)
    return Found(chosen, search.tried, agreement)


class _Search:
    """Files in a folder of their own, and what was found out about them."""

    def __init__(
        self,
        draft: Draft,
        calibration: CalibrationImages,
        folder: Path,
        show: Callable[[str], None],
    ) -> None:
        self.draft, self.calibration, self.folder, self.show = draft, calibration, folder, show
        self.tried = [Tried('fp32'), Tried('int8, dynamic')]
        self.tried += [Tried('int8, static', kept) for kept in MIXES]
        self.images = read_test_images(draft.cfg, _IMAGES)

    def fastest(self, max_ap_drop: float) -> Tried | None:
        """The fastest file that is good enough and faster than fp32."""
        fp32, *others = self.tried
        plain = OnnxStudent(self.write(fp32), threads=1)
        fp32.ap = self._ap(plain)
        self.show(f'fp32: mask AP {fp32.ap:.2f}')
        if not fp32.ap > 0:
            raise CASTError(
                f'the student has a mask AP of {fp32.ap:.1f} on the test set, so that none can be '
                'lost; give a trained one, or leave out the largest loss'
            )
        for each in others:
            self._time(plain, each)
            self.show(f'{_title(each)}: {each.speed:.2f} times as fast')
        for each in sorted(others, key=lambda each: -each.speed):
            if each.speed <= 1:
                return None
            each.ap = self._ap(OnnxStudent(self.write(each), threads=1))
            self.show(f'{_title(each)}: mask AP {each.ap:.2f}')
            if is_within(each.ap, fp32.ap, max_ap_drop):
                return each
        return None

    def write(self, tried: Tried, **facts: float | None) -> Path:
        """The file of a candidate; with facts for its metadata, made anew."""
        path = self.folder / f'{self.tried.index(tried)}.onnx'
        if facts or not path.exists():
            static = tried.name == 'int8, static'
            self.draft.write(
                path,
                tried.name.partition(',')[0],
                self.calibration if static else None,
                tried.kept,
                self.folder / 'ranges.json',
                **facts,
            )
            tried.megabytes = path.stat().st_size / 1e6
        return path

    def _time(self, fp32: OnnxStudent, tried: Tried) -> None:
        """In turns with fp32, and in processor time, so that other load slows both alike."""
        students = (fp32, OnnxStudent(self.write(tried), threads=1))
        seconds = np.zeros((_RUNS + 1, 2))
        for run in range(_RUNS + 1):
            for index, student in enumerate(students):
                start = time.process_time()
                for image in self.images:
                    student(image)
                seconds[run, index] = (time.process_time() - start) / len(self.images)
        plain, tried.seconds = np.median(seconds[1:], axis=0)
        self.tried[0].seconds = self.tried[0].seconds or plain
        tried.speed = float(np.median(seconds[1:, 0] / seconds[1:, 1]))

    def _ap(self, student: OnnxStudent) -> float:
        with quiet():  # COCO's evaluation prints twelve lines each time
            return 100 * mask_ap(self.draft.cfg, predictor(student))


def is_within(ap: float, fp32: float, max_ap_drop: float) -> bool:
    """Whether an AP is at most so far below another; 26.2 - 25.7 is a little more than 0.5 here."""
    return fp32 - ap <= max_ap_drop + 1e-6


def table_file(out_file: str | Path) -> Path:
    """Where the table of an ONNX file is: ``student.tried.md`` of ``student.onnx``."""
    return Path(out_file).with_suffix('.tried.md')


def to_table(tried: Sequence[Tried], max_ap_drop: float, chosen: Tried | None) -> str:
    """In Markdown, the fastest first."""
    rows = [_HEADERS, ('---',) * len(_HEADERS)]
    for each in sorted(tried, key=lambda each: -each.speed):
        ap, drop = ('', '') if each.ap is None else (each.ap, (tried[0].ap or 0) - each.ap)
        rows.append(
            (
                each.name + (', **written**' if each is chosen else ''),
                ', '.join(each.kept),
                f'{1000 * each.seconds:.1f}',
                f'{each.speed:.2f}',
                f'{ap:.2f}' if ap != '' else 'not needed',
                f'{drop:.2f}' if drop != '' else '',
                f'{each.megabytes:.1f}',
            )
        )
    lines = [f'| {" | ".join(row)} |' for row in rows]
    outcome = 'nothing was written' if chosen is None else 'the fastest of those is written'
    lines += ['', f'At most {max_ap_drop:g} mask AP below fp32: {outcome}.']
    return '\n'.join(lines) + '\n'


def _refusal(tried: Sequence[Tried], max_ap_drop: float, out_file: Path) -> str:
    compared = [each for each in tried[1:] if each.ap is not None]
    if not compared:
        reason = 'none is faster than fp32 on this machine'
    else:
        best = max(compared, key=lambda each: each.ap or 0)
        reason = (
            f'the best that is faster, {_title(best)}, is {(tried[0].ap or 0) - (best.ap or 0):.2f}'
            ' below'
        )
    return (
        f'no 8-bit file is within {max_ap_drop:g} mask AP of fp32 ({reason}; all in '
        f'{table_file(out_file)}): {out_file} was not written; use --precision fp32, other or more '
        'calibration images, or a larger --max-ap-drop'
    )


def _title(tried: Tried) -> str:
    return tried.name + (f', {" and ".join(tried.kept)} in fp32' if tried.kept else '')
