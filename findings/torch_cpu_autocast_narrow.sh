#!/usr/bin/env bash
# torch 2.14.1: what torch.autocast computes in float32 on a GPU for safety it leaves in bfloat16 on a CPU. Layer and
# group normalisation, softmax and log-softmax, sums, cumulative sums, logarithms, softplus, norms, cosine similarity
# and bilinear resizing all have a float32 rule for CUDA and none for the CPU: of bfloat16 inputs they return
# bfloat16, so that a sum of 4,096 ones plus one more is 4,096. (Losses such as cross entropy, and grid_sample, do
# have one.) One training recipe with `autocast(device, torch.bfloat16)` is thus not the same recipe on both devices.
# The script asks torch's own dispatcher, runs each operator on a CPU, and exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PYTHON'
import torch
import torch.nn.functional as F

x = torch.rand(2, 8, 4, 4).bfloat16()
operators = {
    'layer_norm': lambda: F.layer_norm(x, [4]),
    'group_norm': lambda: F.group_norm(x, 2),
    'softmax.int': lambda: x.softmax(1),
    'log_softmax.int': lambda: x.log_softmax(1),
    'sum.dim_IntList': lambda: x.sum(1),
    'cumsum': lambda: x.cumsum(1),
    'log': lambda: x.log(),
    'softplus': lambda: F.softplus(x),
    'norm.Scalar': lambda: torch.ops.aten.norm(x, 2),
    'cosine_similarity': lambda: F.cosine_similarity(x, x),
    'upsample_bilinear2d': lambda: F.interpolate(x, scale_factor=2, mode='bilinear'),
}
has_rule = torch._C._dispatch_has_kernel_for_dispatch_key
with torch.autocast('cpu', torch.bfloat16):
    for name, run in operators.items():
        rules = {key: has_rule(f'aten::{name}', f'Autocast{key}') for key in ('CUDA', 'CPU')}
        kept = run().dtype
        print(f'{name:20s} rule for CUDA: {rules["CUDA"]}, for the CPU: {rules["CPU"]}; on the CPU: {kept}')
        assert rules == dict(CUDA=True, CPU=False), 'both devices have the same rule now'
        assert kept == torch.bfloat16, 'computed in float32 on the CPU too'
    ones = torch.ones(4097).bfloat16()
    print('sum of 4,097 ones:', ones.sum().item())
    assert ones.sum().item() == 4096
    assert F.cross_entropy(x[..., 0, 0], torch.tensor([1, 2])).dtype == torch.float32
PYTHON
echo 'As described.'
