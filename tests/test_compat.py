"""The stand-in for mmcv's compiled operators, called through mmcv.ops, against slow loops in plain
Python.
"""

import importlib
import math
import os
import subprocess
import sys

import pytest
import torch
from devices import DEVICES

from mmcast import compat, mmcv_ext
from mmcast.errors import CASTError


@pytest.fixture(autouse=True)
def through_the_stand_in(monkeypatch):
    """Let mmcv.ops call the stand-in even where mmcv has compiled operators."""
    for name in ('nms', 'roi_align', 'multi_scale_deform_attn'):
        monkeypatch.setattr(importlib.import_module(f'mmcv.ops.{name}'), 'ext_module', mmcv_ext)


def run_python(code: str, *paths) -> str:
    path = os.pathsep.join([*map(str, paths), os.path.dirname(os.path.dirname(compat.__file__))])
    done = subprocess.run(
        [sys.executable, '-c', code],
        env=dict(os.environ, PYTHONPATH=path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ---- nms


def reference_iou(a: list[float], b: list[float], offset: int) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    inter = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return inter / (sum(areas) - inter)


def reference_nms(
    boxes: torch.Tensor, scores: torch.Tensor, threshold: float, offset: int
) -> list[int]:
    boxes, keep = boxes.tolist(), []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i].item()):
        if all(reference_iou(boxes[i], boxes[j], offset) <= threshold for j in keep):
            keep.append(i)
    return keep


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.0, 0.3, 0.7])
def test_nms_keeps_what_greedy_suppression_keeps(offset, threshold):
    from mmcv.ops import nms

    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(60, 2, generator=generator) * 30
    boxes = torch.cat([corners, corners + 1 + torch.rand(60, 2, generator=generator) * 20], dim=1)
    scores = torch.rand(60, generator=generator)
    dets, indices = nms(boxes, scores, threshold, offset=offset)
    assert indices.tolist() == reference_nms(boxes, scores, threshold, offset)
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], dim=1)[indices])


def test_nms_offset_counts_the_last_pixel():
    from mmcv.ops import nms

    boxes = torch.tensor(
        [[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 2.0, 1.0]]
    )  # touching edges: overlap 0, or 2 of 6 pixels
    scores = torch.tensor([0.9, 0.8])
    assert nms(boxes, scores, 0.3, offset=0)[1].tolist() == [0, 1]
    assert nms(boxes, scores, 0.3, offset=1)[1].tolist() == [0]


def test_nms_of_no_boxes_is_empty():
    from mmcv.ops import nms

    dets, indices = nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert dets.shape == (0, 5) and indices.shape == (0,)


# ---- roi_align


def bilinear(feature: torch.Tensor, y: float, x: float) -> torch.Tensor:
    """RoIAlign's interpolation on (C, H, W): 0 beyond a pixel outside, the border's value up to
    there.
    """
    height, width = feature.shape[1:]
    if y < -1 or y > height or x < -1 or x > width:
        return feature.new_zeros(feature.shape[0])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = math.floor(y), math.floor(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    fy, fx = y - y0, x - x0
    top = feature[:, y0, x0] * (1 - fx) + feature[:, y0, x1] * fx
    bottom = feature[:, y1, x0] * (1 - fx) + feature[:, y1, x1] * fx
    return top * (1 - fy) + bottom * fy


def reference_roi_align(features, rois, size, scale, ratio, aligned):
    shift, results = 0.5 if aligned else 0.0, []
    for image, *box in rois.tolist():
        x1, y1, x2, y2 = [value * scale - shift for value in box]
        width, height = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1), max(y2 - y1, 1))
        step_y, step_x = height / size[0], width / size[1]
        ny, nx = ratio or math.ceil(step_y), ratio or math.ceil(step_x)
        for row in range(size[0]):
            for col in range(size[1]):
                ys = [y1 + (row + (i + 0.5) / ny) * step_y for i in range(ny)]
                xs = [x1 + (col + (j + 0.5) / nx) * step_x for j in range(nx)]
                samples = [bilinear(features[int(image)], y, x) for y in ys for x in xs]
                results.append(sum(samples) / len(samples))
    return torch.stack(results).reshape(len(rois), *size, -1).permute(0, 3, 1, 2)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align_is_the_mean_of_bilinear_samples(ratio, aligned):
    from mmcv.ops import roi_align

    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2, 3, 7, 9, generator=generator, dtype=torch.float64).requires_grad_()
    rois = torch.tensor(
        [[0, 2, 1, 11, 9], [1, -4, 3, 30, 13], [1, 5, 5, 5.5, 6]], dtype=torch.float64
    )
    got = roi_align(features, rois, (3, 2), 0.5, ratio, 'avg', aligned)
    want = reference_roi_align(features, rois, (3, 2), 0.5, ratio, aligned)
    assert torch.allclose(got, want)
    upstream = torch.randn(got.shape, generator=generator, dtype=torch.float64)
    (got_grad,) = torch.autograd.grad(got, features, upstream)
    (want_grad,) = torch.autograd.grad(want, features, upstream)
    assert torch.allclose(got_grad, want_grad)


def test_roi_align_without_rois_gives_a_zero_gradient():
    from mmcv.ops import roi_align

    features = torch.randn(1, 2, 4, 4, requires_grad=True)
    output = roi_align(features, torch.zeros(0, 5), (2, 2))
    assert output.shape == (0, 2, 2, 2)
    output.sum().backward()
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_roi_align_by_maximum_is_refused():
    from mmcv.ops import roi_align

    with pytest.raises(CASTError, match="roi_align.*'max'"):
        roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), (2, 2), 1.0, 0, 'max')


# ---- deformable attention


def zero_padded_sample(level: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(D,) from ``level`` (H, W, D) at normalised coordinates; pixel centres: (i + 0.5) / size."""
    height, width = level.shape[:2]
    column, row = x * width - 0.5, y * height - 0.5
    x0, y0 = math.floor(column.item()), math.floor(row.item())
    total = level.new_zeros(level.shape[2])
    for i in (y0, y0 + 1):
        for j in (x0, x0 + 1):
            if 0 <= i < height and 0 <= j < width:
                total = total + level[i, j] * (1 - (row - i).abs()) * (1 - (column - j).abs())
    return total


def reference_attention(value, shapes, locations, weights):
    batch, queries, heads, levels, points, _ = locations.shape
    level_maps = [
        part.reshape(batch, height, width, heads, -1)
        for part, (height, width) in zip(value.split([h * w for h, w in shapes], dim=1), shapes)
    ]
    rows = []
    for b in range(batch):
        for q in range(queries):
            for h in range(heads):
                rows.append(
                    sum(
                        weights[b, q, h, k, p]
                        * zero_padded_sample(level_maps[k][b, :, :, h], *locations[b, q, h, k, p])
                        for k in range(levels)
                        for p in range(points)
                    )
                )
    return torch.stack(rows).reshape(batch, queries, -1)


def attention_inputs(device: str = 'cpu', dtype=torch.float64):
    """Two levels, one not square; locations reach outside the image."""
    generator = torch.Generator().manual_seed(2)
    shapes = [(3, 4), (2, 2)]
    value = torch.randn(2, 16, 2, 3, generator=generator, dtype=torch.float64)
    locations = torch.rand(2, 3, 2, 2, 2, 2, generator=generator, dtype=torch.float64) * 1.6 - 0.3
    weights = torch.rand(2, 3, 2, 2, 2, generator=generator, dtype=torch.float64)
    tensors = [x.to(device, dtype).requires_grad_() for x in (value, locations, weights)]
    return (
        tensors,
        shapes,
        torch.tensor(shapes, device=device),
        torch.tensor([0, 12], device=device),
    )


def apply_attention(value, locations, weights, shapes, starts):
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    return MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)


@pytest.mark.parametrize('device', DEVICES)
def test_deformable_attention_agrees_with_loops(device):
    inputs, sizes, shapes, starts = attention_inputs(device)
    got = apply_attention(*inputs, shapes, starts)
    want = reference_attention(inputs[0], sizes, *inputs[1:])
    assert torch.allclose(got, want)
    upstream = torch.randn(got.shape, dtype=torch.float64).to(device)
    ours, theirs = [torch.autograd.grad(output, inputs, upstream) for output in (got, want)]
    for our, their in zip(ours, theirs):
        assert torch.allclose(our, their)


def test_deformable_attention_gradients_by_finite_differences():
    inputs, _, shapes, starts = attention_inputs()
    assert torch.autograd.gradcheck(lambda *x: apply_attention(*x, shapes, starts), inputs)


def test_deformable_attention_at_a_pixel_centre_reads_that_pixel():
    value = torch.arange(12.0).reshape(1, 12, 1, 1)
    centre = torch.tensor([2.5 / 4, 1.5 / 3]).reshape(1, 1, 1, 1, 1, 2)  # row 1, column 2 of 3 x 4
    output = apply_attention(
        value, centre, torch.full((1, 1, 1, 1, 1), 0.5), torch.tensor([[3, 4]]), torch.tensor([0])
    )
    assert output.item() == pytest.approx(0.5 * 6)


def test_deformable_attention_keeps_half_precision_types():
    inputs, _, shapes, starts = attention_inputs(dtype=torch.float16)
    output = apply_attention(*inputs, shapes, starts)
    gradients = torch.autograd.grad(output.sum(), inputs)
    assert output.dtype == torch.float16 and all(g.dtype == torch.float16 for g in gradients)


@pytest.mark.parametrize('device', DEVICES)
def test_deformable_attention_samples_where_it_is_told_to_in_bfloat16(device):
    """Between columns that alternate: 8 bits of a location would be a third of a pixel off."""
    value = (torch.arange(200.0) % 2).to(device, torch.bfloat16).reshape(1, 200, 1, 1)
    places = torch.tensor([[151.5 / 200, 0.5], [180.5 / 200, 0.5]]).reshape(1, 2, 1, 1, 1, 2)
    output = apply_attention(
        value,
        places.to(device),
        torch.ones(1, 2, 1, 1, 1, device=device),
        torch.tensor([[1, 200]], device=device),
        torch.tensor([0], device=device),
    )
    assert output.dtype == torch.bfloat16
    assert output.flatten().tolist() == pytest.approx([1, 0], abs=0.01)


@pytest.mark.parametrize('device', DEVICES)
def test_the_attention_module_agrees_with_loops(device):
    # On the CPU mmcv calls its plain version itself, on CUDA the operator: both must give the same.
    from mmcv.ops import MultiScaleDeformableAttention

    torch.manual_seed(3)
    module = MultiScaleDeformableAttention(
        8, num_heads=2, num_levels=2, num_points=2, dropout=0.0, batch_first=True
    )
    torch.nn.init.normal_(module.attention_weights.weight)
    module = module.double().to(device)
    _, sizes, shapes, starts = attention_inputs(device)
    query = torch.randn(2, 5, 8, dtype=torch.float64, device=device)
    memory = torch.randn(2, 16, 8, dtype=torch.float64, device=device)
    points = torch.rand(2, 5, 2, 2, dtype=torch.float64, device=device)
    got = module(
        query,
        value=memory,
        reference_points=points,
        spatial_shapes=shapes,
        level_start_index=starts,
    )

    value = module.value_proj(memory).reshape(2, 16, 2, 4)
    offsets = module.sampling_offsets(query).reshape(2, 5, 2, 2, 2, 2)
    weights = module.attention_weights(query).reshape(2, 5, 2, 4).softmax(-1).reshape(2, 5, 2, 2, 2)
    locations = points[:, :, None, :, None] + offsets / shapes.flip(1)[:, None]
    want = module.output_proj(reference_attention(value, sizes, locations, weights)) + query
    assert torch.allclose(got, want)


# ---- everything else


def test_a_missing_operator_is_named_when_called_and_not_before():
    operator = mmcv_ext.border_align_forward
    with pytest.raises(CASTError, match='border_align_forward.*MMCV_WITH_OPS=1 pip install'):
        operator(torch.zeros(1))


def test_private_names_are_absent():
    with pytest.raises(AttributeError):
        _ = mmcv_ext.__wrapped__


def fake_mmcv(folder, compiled: bool):
    (folder / 'mmcv').mkdir()
    (folder / 'mmcv' / '__init__.py').touch()
    if compiled:
        (folder / 'mmcv' / '_ext.py').touch()
    return folder


@pytest.mark.parametrize('compiled', [True, False])
def test_the_stand_in_is_used_only_where_compiled_operators_are_missing(tmp_path, compiled):
    origin = run_python(
        'import mmcast, mmcv._ext; print(mmcv._ext.__file__)', fake_mmcv(tmp_path, compiled)
    )
    assert origin == (str(tmp_path / 'mmcv' / '_ext.py') if compiled else mmcv_ext.__file__)


def test_importing_mmcast_needs_neither_torch_nor_openmmlab():
    blocked = (
        'import sys; sys.modules.update(dict.fromkeys(["torch", "mmengine", "mmcv", "mmdet"]))'
    )
    assert run_python(f'{blocked}; import mmcast; print(mmcast.__version__)')


def test_installing_twice_changes_nothing():
    import mmengine.logging

    before = list(sys.meta_path), mmengine.logging.print_log
    compat.install()
    assert (sys.meta_path, mmengine.logging.print_log) == before


def test_importing_mmcast_brings_nothing_heavy_in():
    """Who runs an ONNX file need not wait for torch, nor have it."""
    code = (
        'import sys, mmcast, mmcast.cli.errors, mmcast.deploy; print({"torch", "mmengine", "mmcv", '
        '"mmdet", "cv2"} & set(sys.modules))'
    )
    assert run_python(code) == 'set()'


def test_only_the_onedl_line_is_dropped(capsys):
    import mmdet  # noqa: F401  readies the printer
    from mmengine.logging import print_log

    capsys.readouterr()
    print_log('Could not import OneDL')
    print_log('Could not import OneDL as asked')
    assert capsys.readouterr().out == 'Could not import OneDL as asked\n'


# ---- transformers 5


@pytest.mark.parametrize('attention', ['sdpa', 'eager'])
def test_bert_takes_a_mask_of_pairs_of_tokens(attention):
    """Two sentences in a row that do not see each other are those two sentences alone."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        attn_implementation=attention,
    )
    torch.manual_seed(0)
    model = BertModel(config, add_pooling_layer=False).eval()
    first, second = torch.tensor([[3, 7, 4]]), torch.tensor([[5, 5, 9, 11]])
    pairs = torch.block_diag(torch.ones(3, 3), torch.ones(4, 4)).bool()[None]
    with torch.no_grad():
        both = model(
            torch.cat([first, second], 1),
            attention_mask=pairs,
            position_ids=torch.tensor([[0, 1, 2, 0, 1, 2, 3]]),
        ).last_hidden_state
        alone = torch.cat([model(ids).last_hidden_state for ids in (first, second)], 1)
        padded = model(
            torch.cat([first, second], 1), attention_mask=torch.tensor([[1, 1, 1, 0, 0, 0, 0]])
        ).last_hidden_state
    torch.testing.assert_close(both, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(padded[:, :3], alone[:, :3], rtol=0, atol=1e-5)


def test_optimisers_and_plots_of_others_are_imported_when_they_are_used():
    """transformers' Adafactor in MMEngine, seaborn in mmdet."""
    code = """
import sys
import mmcast
import mmdet.datasets
from mmengine.registry import OPTIMIZERS
assert 'peft' not in sys.modules and 'pandas' not in sys.modules
import torch
weight = torch.nn.Parameter(torch.ones(2))
optimiser = OPTIMIZERS.build(dict(type='Adafactor', params=[weight], lr=0.1, relative_step=False))
import transformers
assert type(optimiser) is transformers.Adafactor, type(optimiser)
from mmdet.utils import mot_error_visualize
print(len(mot_error_visualize.sns.color_palette()) if mot_error_visualize.sns else 10)
"""
    assert run_python(code).splitlines()[-1] == '10'
