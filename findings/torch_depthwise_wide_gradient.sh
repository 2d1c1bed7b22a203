#!/usr/bin/env bash
# torch 2.14.1 (oneDNN 3.12.0, x86 with AVX-512): on a CPU the weight gradient of a depthwise convolution is slow as
# soon as the kernel is more than three columns wide, in either memory layout. A 3x5 kernel takes 5 to 11 times as
# long as a 5x3 one, which has as many weights; a 5x5 kernel takes 7 to 18 times as long as a 5x3 one, and 4 to 13
# times as long as its own gradient of the images. EfficientNet and MobileNetV3 have 5x5 kernels, ConvNeXt 7x7. The
# same gradient taken three columns of the kernel at a time is fast. Times are CPU seconds of one thread, medians in
# turns; the script asks for a factor of 2.5 and exits with 1 when that changes. Not tried without AVX-512.
set -euo pipefail
grep -qw avx512f /proc/cpuinfo || { echo 'this needs a CPU with AVX-512' >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PYTHON'
import statistics
import time

import torch

OF_IMAGES, OF_WEIGHT = (True, False, False), (False, True, False)


def backward_of(kernel, wanted, shape, layout):
    images, gradient = (torch.randn(shape).contiguous(memory_format=layout) for _ in range(2))
    weight, padding = torch.randn(shape[1], 1, *kernel), [side // 2 for side in kernel]

    def run():
        start = time.process_time()
        for _ in range(5):
            torch.ops.aten.convolution_backward(
                gradient, images, weight, None, [1, 1], padding, [1, 1], False, [0, 0], shape[1], wanted)
        return time.process_time() - start

    return run


cases = {'3x5': ((3, 5), OF_WEIGHT), '5x3': ((5, 3), OF_WEIGHT), '5x5': ((5, 5), OF_WEIGHT),
         '5x5 images': ((5, 5), OF_IMAGES)}
for shape in ((6, 240, 20, 40), (6, 672, 10, 20), (2, 64, 64, 64)):
    for layout in (torch.channels_last, torch.contiguous_format):
        runs = {name: backward_of(*case, shape, layout) for name, case in cases.items()}
        turns = [{name: run() for name, run in runs.items()} for _ in range(9)]
        median = {name: statistics.median(turn[name] for turn in turns[1:]) for name in cases}
        wide, square = median['3x5'] / median['5x3'], median['5x5'] / median['5x3']
        print(shape, layout, f'3x5 / 5x3: {wide:.1f}, 5x5 / 5x3: {square:.1f},',
              f'5x5, weight / images: {median["5x5"] / median["5x5 images"]:.1f}')
        assert wide > 2.5, 'fixed: width costs no more than height'
        assert square > 2.5, 'fixed: a 5x5 kernel costs about as much as a 5x3 one'
PYTHON
echo 'As described.'
