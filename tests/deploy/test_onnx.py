"""The ONNX file: the same instances as torch, at any size, without torch; and what is refused."""

import copy
import logging
import os
import runpy
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmdet.structures.mask import mask2bbox
from mmengine.config import Config
from mmengine.logging import print_log

from mmcast.deploy import agreement, onnx_export
from mmcast.deploy.accuracy import compare_ap
from mmcast.deploy.agreement import Agreement, run_torch
from mmcast.deploy.export import Source
from mmcast.deploy.exportable import (
    ExportableStudent,
    boxes_from_sums,
    full_size_masks,
    mean_probability,
)
from mmcast.deploy.instances import Instances
from mmcast.deploy.onnx_files import OUTPUTS
from mmcast.deploy.onnx_student import OnnxStudent, scaled_size
from mmcast.errors import CASTError
from mmcast.testing.models import build_model, tiny_student_config

ROOT = Path(__file__).parents[2]


def call(monkeypatch, *args) -> str:
    monkeypatch.setattr(sys, 'argv', ['export_onnx.py', *map(str, args)])
    try:
        runpy.run_path(str(ROOT / 'tools/export_onnx.py'), run_name='__main__')
    except SystemExit as stop:
        return str(stop.code)
    return ''


# ---- the graph in torch


def test_exportable_student_finds_what_mmdet_finds(network, photos):
    student = ExportableStudent(network).eval()
    images = np.stack([photo[:101, :203] for photo in photos[:2]])  # no multiples of the patch
    with torch.no_grad():
        boxes, masks, scores, labels, owners = student(torch.from_numpy(images), torch.tensor(0.0))
    for index, expected in enumerate(run_torch(network, images)):
        expected = expected[expected.scores > 0]  # a mask without a pixel scores 0
        mine = owners == index
        order = scores[mine].argsort(descending=True, stable=True)
        assert torch.allclose(scores[mine][order], torch.from_numpy(expected.scores), atol=1e-5)
        for found, wanted in (
            (masks, expected.masks),
            (labels, expected.labels),
            (boxes, expected.boxes),
        ):
            assert np.array_equal(found[mine][order].numpy(), wanted)


def test_masks_are_upsampled_for_instances_that_can_pass_only(network, photos, monkeypatch):
    """However many queries there are, memory is that of the instances that are returned, or nearly
    so.
    """
    upsampled = []

    def watch(logits, *sizes):
        upsampled.append(len(logits))
        return full_size_masks(logits, *sizes)

    monkeypatch.setattr('mmcast.deploy.exportable.full_size_masks', watch)
    with torch.no_grad():
        *_, owners = ExportableStudent(network).eval()(
            torch.from_numpy(photos[0][None]), torch.tensor(0.5)
        )
    assert 0 < len(owners) <= upsampled[0] < 24


@pytest.mark.parametrize(
    'padded, size', [((9, 13), (9, 13)), ((36, 56), (33, 56)), ((70, 21), (5, 20))]
)
def test_full_size_masks_their_boxes_and_scores_are_mmdets(padded, size):
    logits = torch.randn(6, 9, 13, generator=torch.Generator().manual_seed(0)) - 1.5
    logits[2] = -1
    logits[3, 4, 5] = 1e-30  # a mask begins above 0, however little
    *made, areas, sums = full_size_masks(logits, padded, size)
    masks, boxes = made[0][:-1], boxes_from_sums(areas, sums)
    expected = torch.nn.functional.interpolate(logits[None], padded, mode='bilinear')[0]
    expected = expected[:, : size[0], : size[1]]
    assert torch.equal(masks, expected > 0) and not made[0][-1].any()
    assert torch.equal(boxes[:-1], mask2bbox(expected > 0))
    assert boxes[2].tolist() == boxes[-1].tolist() == [0, 0, 0, 0]
    for index, score in enumerate(mean_probability(areas, sums)[:-1]):
        inside = expected[index].sigmoid()[masks[index]]
        assert score == pytest.approx(inside.mean().item() if len(inside) else 0, rel=1e-4)


def test_images_of_a_network_for_bgr_are_turned(network, photos):
    student = ExportableStudent(network)
    image = torch.from_numpy(photos[0][None])
    student.bgr = True
    turned = student.prepare(image)
    student.bgr = False
    assert torch.allclose(turned, student.prepare(image.flip(-1)), atol=0.3) and not torch.equal(
        turned, student.prepare(image)
    )


# ---- the file


@pytest.mark.parametrize('size', [(112, 224), (67, 205), (203, 97)])
@pytest.mark.parametrize('batch', [1, 3])
def test_onnxruntime_finds_the_same_instances_as_torch(network, onnx_file, photos, size, batch):
    import cv2

    images = np.stack([cv2.resize(photo, size[::-1]) for photo in photos[:batch]])
    found = Agreement()
    for expected, got in zip(run_torch(network, images), OnnxStudent(onnx_file).run(images, -1.0)):
        assert len(got) == 24 and got.masks.shape[1:] == size
        found.add(expected[expected.scores > 0.05], got)
    assert found.instances > batch and found.alone == 0 and min(found.ious) > 0.99
    assert max(found.score_differences) < 1e-3


def test_attention_of_onnxruntime_finds_the_same_instances(
    trained, network, photos, tmp_path, monkeypatch
):
    assert (
        call(
            monkeypatch,
            trained.config,
            trained.checkpoint,
            '--out',
            tmp_path / 'fused.onnx',
            '--attention',
            'onnxruntime',
        )
        == ''
    )
    graph = onnx.load(tmp_path / 'fused.onnx').graph
    assert [node.op_type for node in graph.node if node.domain == 'com.microsoft'] == [
        'MultiHeadAttention'
    ] * len(network.backbone.layers)
    student, found = OnnxStudent(tmp_path / 'fused.onnx'), Agreement()
    assert student.metadata['attention'] == 'onnxruntime'
    for expected, got in zip(
        run_torch(network, np.stack(photos[:2])), student.run(np.stack(photos[:2]), -1.0)
    ):
        found.add(expected[expected.scores > 0.05], got)
    assert found.instances > 2 and found.alone == 0 and min(found.ious) > 0.99


def test_what_prediction_would_not_take_is_not_written(tmp_path):
    source = Source(tmp_path / 'none.py', tmp_path / 'none.pth')
    with pytest.raises(CASTError, match='a.pth: give a name that ends in .onnx'):
        onnx_export.export_onnx(source, tmp_path / 'a.pth')
    with pytest.raises(CASTError, match='threshold nan: give a number'):
        onnx_export.export_onnx(source, tmp_path / 'a.onnx', score_threshold=float('nan'))


def test_attention_of_another_encoder_is_not_fused(network):
    other = copy.deepcopy(network)  # the network is shared by all tests
    other.backbone = torch.nn.Identity()
    with pytest.raises(CASTError, match='Identity is not a DINOv2'):
        ExportableStudent(other, fused_attention=True)


def test_no_instance_passes_a_threshold_of_one(onnx_file, photos):
    (found,) = OnnxStudent(onnx_file).run(photos[0][None], 1.0)
    assert len(found) == 0 and found.masks.shape == (0, 112, 224) and found.boxes.shape == (0, 4)


def test_mask_ap_is_that_of_torch(trained, onnx_file):
    ap = compare_ap(trained, onnx_file)
    assert ap['torch'] > 0.02 and ap['onnx'] == pytest.approx(ap['torch'], abs=0.001)


def test_the_ap_in_torch_is_of_the_network_that_the_file_has(trained, onnx_file, tmp_path):
    """An online teacher's average; its student is not that yet."""
    cfg = Config.fromfile(trained.config)
    cfg.model.semi_test_cfg = dict(predict_on='teacher')
    cfg.dump(tmp_path / 'online.py')
    state = torch.load(trained.checkpoint, weights_only=True)['state_dict']
    for key in [key for key in state if key.startswith('detector.')]:
        state[key.replace('detector.', 'teacher.', 1)] = state[key]
        state[key] = torch.zeros_like(state[key])
    torch.save(dict(state_dict=state), tmp_path / 'iter_1.pth')
    ap = compare_ap(Source(tmp_path / 'online.py', tmp_path / 'iter_1.pth'), onnx_file)
    assert ap['torch'] > 0.02 and ap['onnx'] == pytest.approx(ap['torch'], abs=0.001)


def test_the_file_describes_itself(onnx_file, photos):
    session = onnxruntime.InferenceSession(onnx_file)
    (image,) = session.get_inputs()  # the threshold has a default
    assert (image.name, image.shape, image.type) == (
        'images',
        ['batch', 'height', 'width', 3],
        'tensor(uint8)',
    )
    shapes = {output.name: output.shape for output in session.get_outputs()}
    assert shapes['masks'] == ['instances', 'height', 'width'] and shapes['image_indices'] == [
        'instances'
    ]
    student = OnnxStudent(onnx_file)
    assert (
        student.classes[2] == 'car'
        and student.score_threshold == 0.3
        and student.metadata['step'] == 'transfer'
    )
    assert student.metadata['mean'] == [123.675, 116.28, 103.53] and student.metadata['resize'] == [
        224,
        112,
    ]
    scores = session.run(['scores'], dict(images=photos[0][None]))[0]
    assert len(scores) and scores.min() > 0.3


ALONE = """
import sys
class OnlyNumpyAndOnnxruntime:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in (
            'torch', 'torchvision', 'mmdet', 'mmcv', 'mmengine', 'mmpretrain', 'cv2',
            'PIL', 'scipy', 'pycocotools', 'onnx', 'rich', 'jinja2', 'safetensors',
        ):
            raise ImportError(f'{name} is not in the clean environment')
sys.meta_path.insert(0, OnlyNumpyAndOnnxruntime())
import numpy as np
from mmcast.deploy import OnnxStudent
student = OnnxStudent(sys.argv[1])
found = student(np.load(sys.argv[2]))
print(len(found), found.masks.shape, [student.classes[label] for label in found.labels][:1])
"""


def test_a_second_image_takes_no_second_block_of_memory(onnx_file):
    # What the pattern costs: findings/onnxruntime_pattern_doubles_memory.sh
    assert not OnnxStudent(onnx_file).session.get_session_options().enable_mem_pattern


def test_numpy_and_onnxruntime_are_enough(onnx_file, photos, tmp_path):
    np.save(tmp_path / 'photo.npy', photos[0])
    done = subprocess.run(
        [sys.executable, '-c', ALONE, onnx_file, tmp_path / 'photo.npy'],
        capture_output=True,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )
    assert done.returncode == 0, done.stderr
    expected = OnnxStudent(onnx_file)(photos[0])
    assert done.stdout.startswith(f'{len(expected)} ({len(expected)}, 112, 224)')


def test_an_image_of_another_size_gets_masks_of_its_own(onnx_file, photos):
    import cv2

    student = OnnxStudent(onnx_file)
    small, large = (
        student(photos[0]),
        student(cv2.resize(photos[0], (448, 224), interpolation=cv2.INTER_NEAREST)),
    )
    assert large.masks.shape[1:] == (224, 448) and len(large) == len(small) > 0
    for mask, box, one in zip(large.masks, large.boxes, small.masks):
        wanted = np.kron(one, np.ones((2, 2), bool))
        assert (mask & wanted).sum() > 0.9 * (mask | wanted).sum()
        rows = np.flatnonzero(mask.any(1))
        assert (box[1], box[3]) == (rows[0], rows[-1] + 1)


@pytest.mark.parametrize(
    'size, scale, expected',
    [
        ((1024, 2048), (2048, 1024), (1024, 2048)),
        ((100, 400), (2560, 630), (630, 2520)),
        ((100, 500), (2560, 630), (512, 2560)),
        ((480, 640), None, (480, 640)),
    ],
)
def test_images_are_fitted_as_mmcv_fits_them(size, scale, expected):
    from mmcv.image import rescale_size

    assert scaled_size(size, scale) == expected
    if scale:
        assert rescale_size(size[::-1], scale) == expected[::-1]


@pytest.mark.parametrize('precision', ['fp16', 'int8'])
def test_smaller_precisions_agree_within_their_tolerance(
    graph_at_hand, trained, onnx_file, tmp_path, precision
):
    found = onnx_export.export_onnx(trained, tmp_path / 'small.onnx', precision)
    assert found.instances > 5 and np.mean(found.ious) > 0.9
    assert (tmp_path / 'small.onnx').stat().st_size < 0.8 * onnx_file.stat().st_size
    assert OnnxStudent(tmp_path / 'small.onnx').metadata['precision'] == precision


def test_windows_are_joined_as_in_torch(graph_at_hand, trained, onnx_file, photos, tmp_path):
    """The export compares the two at sizes that divide into patches and at sizes that do not."""
    cfg = Config.fromfile(trained.config)
    side = 5 * cfg.model.detector.data_preprocessor.pad_size_divisor
    cfg.model.detector.test_cfg.windows = dict(size=side, overlap=side // 2)
    cfg.dump(tmp_path / 'windows.py')
    found = onnx_export.export_onnx(
        replace(trained, config=tmp_path / 'windows.py'), tmp_path / 'windows.onnx'
    )
    assert found.instances > 5 and found.alone == 0
    student = OnnxStudent(tmp_path / 'windows.onnx')
    assert student.metadata['windows'] == dict(size=side, overlap=side // 2)
    found, whole = (
        student.run(photos[0][None], 0.05)[0],
        OnnxStudent(onnx_file).run(photos[0][None], 0.05)[0],
    )
    assert found.masks.shape[1:] == whole.masks.shape[1:] and len(found) != len(whole)
    assert len(student.run(photos[0][None], 1.0)[0]) == 0

    batches, run = [], student._run_whole  # few windows at a time, and the same instances
    student._run_whole = lambda images, threshold: (
        batches.append(len(images)) or run(images, threshold)
    )
    student.metadata['windows']['batch_size'] = 2
    few = student.run(photos[0][None], 0.05)[0]
    assert max(batches) == 2 and len(batches) > 1
    assert few.labels.tolist() == found.labels.tolist()
    np.testing.assert_allclose(few.scores, found.scores, atol=1e-5)
    assert (few.masks != found.masks).mean() < 1e-4


# ---- what is refused


def test_a_file_that_differs_is_removed(graph_at_hand, trained, tmp_path, monkeypatch):
    original = agreement.run_torch

    def shifted(network, images):
        return [
            Instances(each.boxes, np.roll(each.masks, 9, axis=2), each.scores, each.labels)
            for each in original(network, images)
        ]

    monkeypatch.setattr(agreement, 'run_torch', shifted)
    error = call(
        monkeypatch, trained.config, trained.checkpoint, '--out', tmp_path / 'student.onnx'
    )
    assert (
        error.startswith('error: the fp32 ONNX file does not agree with torch (')
        and '\n' not in error
    )
    assert not list(tmp_path.iterdir())


def test_instances_that_one_of_the_two_lacks_are_counted():
    masks = np.zeros((2, 20, 20), bool)
    masks[0, :10], masks[1, 12:] = True, True
    expected = Instances(np.zeros((2, 4)), masks, np.array([0.9, 0.8]), np.array([1, 1]))
    found = Agreement()
    found.add(expected, expected[np.array([0])])
    found.add(expected, Instances(expected.boxes, masks, expected.scores, np.array([1, 2])))
    assert (found.instances, found.alone, found.ious) == (4, 2, [1.0, 1.0])
    duplicate = Instances(expected.boxes, masks[[0, 0]], np.array([0.9, 0.3]), np.array([1, 1]))
    found.add(
        duplicate, duplicate
    )  # two queries that found one object: each is compared with itself
    assert found.score_differences == [0.0] * 4
    assert found.problems(agreement.TOLERANCES['fp32']) == [
        '2 of 6 instances are found by torch alone'
    ]


def test_existing_files_missing_packages_and_unwritable_targets_are_one_line(
    trained, onnx_file, tmp_path, monkeypatch
):
    both = (trained.config, trained.checkpoint)
    error = call(monkeypatch, *both, '--out', onnx_file)
    assert error.startswith(f'error: {onnx_file} exists') and '--force' in error
    (tmp_path / 'file').touch()
    error = call(monkeypatch, *both, '--out', tmp_path / 'file/student.onnx')
    assert (
        error.startswith(f'error: cannot write {tmp_path}/file/student.onnx') and '\n' not in error
    )
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    error = call(monkeypatch, *both, '--out', tmp_path / 'student.onnx')
    assert (
        error.startswith('error: onnxscript is needed') and 'pip install "mmcast[deploy]"' in error
    )


def test_a_network_that_is_no_mask2former_is_named():
    with pytest.raises(CASTError, match='Linear is not a Mask2Former'):
        ExportableStudent(torch.nn.Linear(1, 1))


@pytest.mark.parametrize(
    'content, reason',
    [
        (None, 'not found'),
        (b'', 'is not an ONNX file but empty'),
        (b'no', 'is not an ONNX file but a text file'),
        (b'\0' * 9, 'is not a student of mmcast onnx'),
        (b'\0mmcast student', 'cannot be loaded by onnxruntime'),
    ],
)
def test_a_file_that_is_no_onnx_is_named(tmp_path, content, reason):
    path = tmp_path / 'student.onnx'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CASTError, match=f'student.onnx {reason}'):
        OnnxStudent(path)


def test_a_flipped_bit_of_the_weights_is_found(onnx_file, tmp_path):
    data = bytearray(onnx_file.read_bytes())
    path = tmp_path / 'student.onnx'
    path.write_bytes(data)
    assert OnnxStudent(path).metadata['content_sha256'] != '0' * 64
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CASTError, match=r'student\.onnx is not as mmcast onnx wrote it'):
        OnnxStudent(path)


def test_a_file_without_checksum_is_read_as_before(onnx_file, tmp_path):
    model = onnx.load(onnx_file)
    (checksum,) = (each for each in model.metadata_props if each.key == 'content_sha256')
    model.metadata_props.remove(checksum)
    onnx.save(model, tmp_path / 'student.onnx')
    assert OnnxStudent(tmp_path / 'student.onnx').classes
    for change in (dict(value='['), dict(value='3')):
        for each in model.metadata_props:
            if each.key == 'classes':
                each.value = change['value']
        onnx.save(model, tmp_path / 'student.onnx')
        with pytest.raises(CASTError, match=r'student\.onnx does not say what it is'):
            OnnxStudent(tmp_path / 'student.onnx')


@pytest.mark.parametrize('mask, mode', [(0o002, 0o664), (0o027, 0o640)])
def test_permissions_follow_the_umask(graph_at_hand, trained, tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        onnx_export.export_onnx(trained, tmp_path / 'student.onnx')
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / 'student.onnx').stat().st_mode) == mode


def test_an_encoder_with_tensorflows_padding_is_exported_for_any_size():
    """timm's own padding depends on the image's size, and its export does not end."""
    config = tiny_student_config(num_queries=4)
    config.data_preprocessor.pad_size_divisor = 32
    config.backbone = dict(
        type='TimmEncoder', name='tf_mobilenetv3_small_minimal_100', channels_last=True
    )
    config.panoptic_head.update(in_channels=None)
    config.panoptic_head.pixel_decoder.scales = None
    config.panoptic_head.transformer_decoder.num_layers = 1
    network = build_model(config).eval()
    graph = onnx_export.to_onnx(network)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    generator = np.random.default_rng(0)
    for size in ((96, 160), (75, 131)):
        images = generator.integers(0, 256, (2, *size, 3), dtype=np.uint8)
        feeds = dict(images=images, score_threshold=np.array(0, np.float32))
        found = dict(zip(OUTPUTS, session.run(list(OUTPUTS), feeds)))
        for index, expected in enumerate(run_torch(network, images)):
            own = found['image_indices'] == index
            order = np.argsort(-found['scores'][own]), np.argsort(-expected.scores)
            scores = found['scores'][own][order[0]], expected.scores[order[1]]
            np.testing.assert_allclose(*scores, atol=1e-4)
            differing = found['masks'][own][order[0]] != expected.masks[order[1]]
            assert expected.masks.shape[1:] == size and differing.mean() < 1e-3


def test_what_is_logged_after_an_export_is_written(capsys):
    """MMEngine's loggers remember that a level was disabled: the warnings of label files and the
    lines of a later run in the same process would be lost.
    """
    with onnx_export.quiet():
        print_log('progress of the exporter', logger='current', level=logging.WARNING)
    print_log('a label is left out', logger='current', level=logging.WARNING)
    said = capsys.readouterr()
    assert 'a label is left out' in said.out + said.err
    assert 'progress' not in said.out + said.err
