"""Compressed run lengths, decoded and judged in NumPy before pycocotools reads them: its compiled
code trusts them.

A character holds six bits from '0' on: five of a number, lowest first, and one that says that more
follow; the fifth of the last is the sign. From the fourth on, a number is the difference to the run
two before.
"""

from collections.abc import Iterator, Sequence

import numpy as np

# Of an image: pycocotools counts in 32 bits, and no memory holds a mask of more.
MAX_PIXELS = 2**31 - 1
_DIGITS = 7  # characters of a number; five bits each hold MAX_PIXELS and its sign
_AT_ONCE = 50_000  # characters: what NumPy makes of them stays in a processor's cache
_LONGEST = 2**28  # characters; the sums of so many numbers stay within 64 bits


def runs_fill(counts: Sequence[str], pixels: np.ndarray) -> np.ndarray:
    """Whether N compressed COCO run lengths are written as COCO does and fill their images.

    Args:
        counts: N texts.
        pixels: (N,) of the images, each at most :data:`MAX_PIXELS`.

    Returns:
        (N,) of bool.
    """
    lengths = np.fromiter(map(len, counts), np.int64, len(counts))
    valid = np.fromiter(map(str.isascii, counts), bool, len(counts)) & (lengths > 0)
    valid &= lengths < _LONGEST
    for part in _parts(lengths):
        chosen = np.flatnonzero(valid[part]) + part.start
        valid[chosen] = _fill([counts[i] for i in chosen.tolist()], pixels[chosen], lengths[chosen])
    return valid


def _parts(lengths: np.ndarray) -> Iterator[slice]:
    """Neighbouring texts of about ``_AT_ONCE`` characters together."""
    number = lengths.cumsum() // _AT_ONCE
    borders = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(lengths)]
    return map(slice, borders[:-1], borders[1:])


def _fill(counts: list[str], pixels: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """:func:`runs_fill` of texts of ASCII that are not empty."""
    if not counts:
        return np.zeros(0, bool)
    codes = _codes(''.join(counts))
    ends = lengths.cumsum()
    last = np.flatnonzero((codes & 32) == 0)  # characters that end a number
    digits = np.diff(last, prepend=-1)
    broken = np.concatenate(
        [
            np.searchsorted(ends, np.flatnonzero(codes > 63), 'right'),
            np.flatnonzero(codes[ends - 1] & 32),
            np.searchsorted(ends, last[digits > _DIGITS], 'right'),
        ]
    )
    if len(broken):  # and what stands after them is not known either
        valid = np.ones(len(counts), bool)
        valid[broken] = False
        rest = np.flatnonzero(valid)
        valid[rest] = _fill([counts[i] for i in rest.tolist()], pixels[rest], lengths[rest])
        return valid
    numbers = _numbers(codes, last, digits)
    return _sum_up(numbers, np.searchsorted(last, ends), pixels)


def decode_runs(text: str) -> np.ndarray:
    """Lengths of the runs of one text, outside and inside the mask by turns; whether they fill an
    image, or are negative, is not looked at.

    Args:
        text: not empty.

    Raises:
        ValueError: it is not written as COCO does.
    """
    codes = _codes(text)
    if codes.max() > 63 or codes[-1] & 32:
        raise ValueError('run lengths that are cut short, or not written as COCO does')
    last = np.flatnonzero((codes & 32) == 0)
    digits = np.diff(last, prepend=-1)
    if digits.max() > _DIGITS:
        raise ValueError('run lengths of absurd size')
    runs = _numbers(codes, last, digits)
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs


def _codes(text: str) -> np.ndarray:
    """The six bits of each character; above 63 for what is no character of COCO's."""
    data = text.encode(errors='surrogatepass')
    return np.frombuffer(data, np.uint8) - np.uint8(ord('0'))


def _numbers(codes: np.ndarray, last: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """The signed numbers of which the last characters and the number of these are given."""
    values = (codes[last] & 31).astype(np.int64)
    values -= (values & 16) << 1  # the sign
    more = np.flatnonzero(digits > 1)
    for digit in range(1, int(digits.max())):
        more = more[digits[more] > digit]
        values[more] = (values[more] << 5) | (codes[last[more] - digit] & 31)
    return values


def _sum_up(numbers: np.ndarray, ends: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Whether the runs that these numbers are differences of are all there and fill their images.

    Args:
        numbers: of all texts, one after the other.
        ends: where in them each text ends.
        pixels: of the texts' images.
    """
    starts = np.append(0, ends[:-1])
    total = numbers[starts]
    valid = total >= 0
    two = np.flatnonzero(ends - starts == 2)
    total[two] += numbers[starts[two] + 1]
    valid[two] &= numbers[starts[two] + 1] >= 0
    # From the second number on, a run is the sum of every second number up to it: of those at even
    # places, or of those at odd ones.
    long = np.flatnonzero(ends - starts > 2)
    for parity in (0, 1):
        sums = np.append(numbers[parity::2].cumsum(), 0)
        first = (starts[long] + 2 - parity) // 2
        borders = np.stack([first, (ends[long] + 1 - parity) // 2], axis=1)
        before = np.where(first > 0, sums[first - 1], 0)
        lowest, highest, added = (
            function.reduceat(sums, borders.ravel())[::2]
            for function in (np.minimum, np.maximum, np.add)
        )
        valid[long] &= (lowest >= before) & (highest - before <= MAX_PIXELS)
        total[long] += added - before * (borders[:, 1] - borders[:, 0])
    return valid & (total == pixels)
