"""benchmarks/pixel_loss.py: what is drawn, gradients and figures of features, by hand and against
loops; its three sub-commands on a tiny network and images on disk.
"""

import json
import math
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from data_plans import write_labels
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmcast.cli.errors import reporting_errors_anew
from mmcast.models.losses import pixel_contrastive_loss
from mmcast.testing.data import make_samples
from mmcast.testing.models import build_model, tiny_cast_config

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / 'benchmarks'))
import pixel_features  # noqa: E402
import pixel_loss  # noqa: E402
import pixel_samples  # noqa: E402


def make_batch(objects=(3, 2), size=(64, 64)):
    """What a data loader gives."""
    images, samples = make_samples(objects, size=size)
    return dict(inputs=list((images * 50 + 120).clamp(0, 255).byte()), data_samples=samples)


@pytest.fixture
def model():
    return build_model(tiny_cast_config(pixel_weight=0.1)).train()


# ---- samples


def test_the_negatives_shown_are_those_of_the_step(model, monkeypatch):
    drawn, real = [], pixel_contrastive_loss.sample_negatives
    monkeypatch.setattr(
        pixel_contrastive_loss,
        'sample_negatives',
        lambda *args: drawn.append(real(*args)) or drawn[-1],
    )
    step = pixel_samples.look(model, make_batch(), progress=1.0)
    shown, used = drawn
    assert torch.equal(shown, used)
    assert torch.equal(step.negatives, used[used[:, 0] >= 0])
    assert model.pixel_contrast.observer is None
    assert step.temperature == pytest.approx(0.07)


def test_looking_leaves_a_training_step_as_it_is(model):
    losses = []
    for look in (False, True):
        torch.manual_seed(3)
        if look:
            taken, real = {}, model.loss
            model.loss = lambda *args, real=real, taken=taken: taken.update(real(*args)) or taken
            pixel_samples.look(model, make_batch(), progress=0.0)
            losses.append(taken)
        else:
            with torch.no_grad():
                losses.append(model.loss(*pixel_samples.prepared(model, make_batch())))
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])


def make_step(**fields):
    """Two images of 1x4 pixels: instances 0 and 1 of class 0, 2 of class 1, one pixel on none; in
    the other image instance 3 of class 0 twice, one pixel on none, one on padding.
    """
    embeddings = torch.eye(8)
    plain = dict(
        weak=np.zeros((2, 8, 32, 3), np.uint8),
        strong=np.zeros((2, 8, 32, 3), np.uint8),
        cosines=torch.full((8,), 0.5),
        embeddings=embeddings,
        anchors=torch.arange(8),
        negatives=torch.tensor([[(i + 1) % 8, (i + 3) % 8] for i in range(8)]),
        lonely=0,
        image=torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]),
        instance=torch.tensor([0, 1, 2, -1, 3, 3, -1, -1]),
        label=torch.tensor([0, 0, 1, -1, 0, 0, -1, -1]),
        padding=torch.tensor([False] * 7 + [True]),
        size=(1, 4),
        temperature=0.5,
        outlines=[[], []],
        objects=4,
        pseudo=torch.tensor([False, False]),
    )
    return pixel_samples.Step(**plain | fields)


def test_kinds_by_hand():
    kinds = make_step().kinds(torch.tensor([0, 3, 4]), torch.arange(8).expand(3, -1))
    assert kinds.tolist() == [
        [0, 1, 2, 3, 4, 4, 5, 6],
        [2, 2, 2, 3, 4, 4, 5, 6],  # an anchor on no instance has no instance of its own
        [4, 4, 4, 5, 0, 0, 3, 6],
    ]


def test_fractions_drawn_of_all_and_of_the_push_by_hand():
    # Anchor 4 draws 5 (its own instance, cosine 0.6) and 7 (padding, cosine 0); anchor 5 draws 6
    # (no instance, 0) and 0 (other image, 0).
    embeddings = torch.eye(8)
    embeddings[5] = torch.tensor([0, 0, 0, 0, 0.6, 0.8, 0, 0])
    found = pixel_samples.tally(make_step(embeddings=embeddings), True, number=100, seed=0)[1]
    assert found.anchors == 2
    assert found.drawn.tolist() == [0.5, 0, 0, 0.5, 0.5, 0, 0.5]
    push = math.exp(0.6 / 0.5) / (math.exp(0.6 / 0.5) + 1)
    assert found.push.tolist() == pytest.approx([push, 0, 0, 0.5, 0.5, 0, 1 - push])
    # Of the seven other pixels: the other one of the instance, three instances, ...
    assert (7 * found.uniform / 2).tolist() == pytest.approx([1, 0, 0, 1, 3, 1, 1])
    assert found.cosine[0] == pytest.approx(0.6)
    assert found.positive == 1


def test_push_is_the_part_of_each_negative_in_the_gradient():
    """Against autograd of the loss's formula: the positive scales all parts of an anchor alike."""
    step = make_step(embeddings=torch.nn.functional.normalize(torch.randn(8, 5), dim=1))
    anchors, negatives = step.anchors[:1], step.negatives[:1]
    logits = torch.stack([step.embeddings[0] @ step.embeddings[n] for n in negatives[0]]) / 0.5
    logits.requires_grad_()
    (torch.cat([torch.ones(1), logits]).logsumexp(0) - 1).backward()
    expected = logits.grad / logits.grad.sum()
    found = pixel_samples.tally(
        make_step(embeddings=step.embeddings, anchors=anchors, negatives=negatives), True, 9, 0
    )
    kinds = step.kinds(anchors, negatives)[0]
    assert found[0].push[kinds].tolist() == pytest.approx(expected.tolist())


# ---- gradients


def test_gradients_are_those_of_backward(model):
    batch = make_batch()
    torch.manual_seed(1)
    found = pixel_loss.gradients(model, batch)
    assert set(found) == {
        'weights of backbone',
        'the contrasted map',
        'the finest map of the pixel decoder',
    }
    torch.manual_seed(1)
    losses = model.loss(*pixel_samples.prepared(model, batch))
    backbone = list(model.detector.backbone.named_parameters())
    for kind, names in dict(
        pxl=['loss_pxl'], mask=[name for name in losses if name.endswith('loss_mask')]
    ).items():
        assert names
        model.zero_grad()
        sum(losses[name] for name in names).backward(retain_graph=True)
        whole = torch.cat([weight.grad.flatten() for _, weight in backbone])
        torch.testing.assert_close(found['weights of backbone'][kind], whole)
    assert set(found['weights of backbone']) == {'cls', 'mask', 'dice', 'pxl'}
    assert not found['the finest map of the pixel decoder']['pxl'].any()  # of the encoder's map


def test_the_pixel_loss_on_a_map_of_the_pixel_decoder_reaches_that_too():
    config = tiny_cast_config(pixel_weight=0.1)
    config.pixel_contrast.update(source='pixel_decoder', feature_index=-1, pool=1)
    found = pixel_loss.gradients(build_model(config).train(), make_batch())
    assert {'weights of backbone', 'weights of panoptic_head'} < set(found)
    finest = found['the finest map of the pixel decoder']
    assert finest['pxl'].any()
    assert torch.equal(finest['pxl'], found['the contrasted map']['pxl'])


def test_norms_and_cosines_by_hand():
    statistics = pixel_loss.GradientStatistics()
    statistics.add(dict(pxl=torch.tensor([3.0, 0]), mask=torch.tensor([1.0, 1])))
    statistics.add(dict(pxl=torch.tensor([0.0, 5]), mask=torch.tensor([0.0, 2])))
    assert statistics.norms['pxl'] == [3, 5]
    assert statistics.norms['others'] == pytest.approx([math.sqrt(2), 2])
    assert statistics.cosines['pxl'] == pytest.approx([math.sqrt(0.5), 1])
    assert statistics.means['pxl'].tolist() == [1.5, 2.5]


# ---- features


def test_retrieval_is_that_of_a_loop():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(30, 4, generator=generator)
    instance = torch.randint(6, (30,), generator=generator)
    instance[0] = 9  # alone: nothing to find
    label = instance % 2
    cosines = torch.nn.functional.cosine_similarity(vectors[:, None], vectors, dim=2).tolist()
    found = pixel_features.retrieve(vectors, instance, label)
    for among in pixel_features.AMONG:
        of_instance = {}
        for a in range(30):
            others = [
                b
                for b in range(30)
                if b != a
                and (
                    instance[b] == instance[a]
                    or among == 'all'
                    or (label[b] == label[a]) == (among == 'its class')
                )
            ]
            others.sort(key=lambda b: -cosines[a][b])
            right = [bool(instance[b] == instance[a]) for b in others]
            if any(right) and not all(right):
                hits = [sum(right[: i + 1]) / (i + 1) for i, hit in enumerate(right) if hit]
                of_instance.setdefault(int(instance[a]), []).append(
                    (right[0], sum(hits) / len(hits))
                )
        means = [np.mean(pairs, axis=0) for pairs in of_instance.values()]
        for metric, total in zip(pixel_features.METRICS, np.sum(means, axis=0)):
            assert found[among, metric] == pytest.approx([total, len(means)])


def test_position_ranks_pixels_by_their_distance():
    places = torch.tensor([[0, 0], [0, 1], [0, 3], [9, 0], [9, 5]])
    pixels = pixel_features.Pixels(torch.zeros(5, 1), places, *[torch.zeros(5)] * 2, (10, 10), 1)
    vectors = pixel_features.baselines(pixels, torch.arange(5), (0, 0))['position']
    cosines = torch.nn.functional.cosine_similarity(vectors[0], vectors)
    assert cosines.argsort(descending=True).tolist() == [0, 1, 2, 3, 4]


def test_truth_lies_under_the_centres_of_a_map():
    """An image of 4x8 pixels, resized to 8x16 on a canvas of 16x16; a map of 4x4."""
    masks = np.zeros((3, 4, 8), np.uint8)
    masks[0, :, :2] = 1  # half of the first of four columns on the canvas ... and the second
    masks[1, 1:, 4:6] = 1
    masks[2, :, 6:] = 1
    sample = DetDataSample(metainfo=dict(img_shape=(8, 16)))
    sample.gt_instances = InstanceData(masks=BitmapMasks(masks[:2], 4, 8))
    sample.ignored_instances = InstanceData(masks=BitmapMasks(masks[2:], 4, 8))
    truth = pixel_features.truth_at(sample, (4, 4), (16, 16)).view(4, 4)
    # Centres at rows 2, 6 of the resized image, 1 and 3 of the masks; columns 1, 3, 5 and 7.
    assert truth.tolist() == [[0, -1, 1, -2], [0, -1, 1, -2], [-2] * 4, [-2] * 4]


def test_the_probe_separates_what_a_line_separates():
    vectors = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    label = (vectors[:, 0] > 0.8).long() * 2  # a fifth of them; class 1 does not occur
    probe = pixel_features.Probe(vectors * 100 + 7, label, num_classes=3)
    right = pixel_features.right_by_class(probe.predict(vectors * 100 + 7), label, 3)
    assert right[:, 1].tolist() == [int((label == c).sum()) for c in range(3)]
    assert (right[[0, 2], 0] / right[[0, 2], 1]).min() > 0.97


def test_figures_and_their_paired_intervals():
    rng = np.random.default_rng(0)
    first = np.stack([rng.random((60, 2)), np.ones((60, 2))], axis=2)
    first[:, 1, 1] = 0  # a group that does not occur
    found = pixel_features.estimate(first)
    assert found.value == pytest.approx(first[:, 0, 0].mean())
    spread = first[:, 0, 0].std(ddof=1) / math.sqrt(60)
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.1)
    second = first - [0.25, 0]  # every image 0.25 worse: the difference has no spread
    difference = pixel_features.compare(first, second)
    assert (difference.low, difference.value, difference.high) == pytest.approx((0.25,) * 3)


# ---- the command line

CONFIG = """
default_scope = 'mmcast'
_meta = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
_pipeline = [
    dict(type='LoadImage'), dict(type='LoadCompressedAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=_meta)]
_data = dict(type='CocoDataset', ann_file='{folder}/labels.json', data_prefix=dict(img='{folder}'),
             metainfo=dict(classes=('cell', 'nucleus')), pipeline=_pipeline)
train_dataloader = dict(batch_size=2, num_workers=1, persistent_workers=True, dataset=_data,
                        sampler=dict(type='InfiniteSampler', shuffle=True))
val_dataloader = dict(batch_size=1, num_workers=1, dataset=dict(_data, test_mode=True),
                      sampler=dict(type='DefaultSampler', shuffle=False))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=10)
"""


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A config of a step on four images, and two checkpoints; `b` has no projector."""
    folder = tmp_path_factory.mktemp('pixel_loss')
    boxes = [[(0, 2, 2, 24, 30), (1, 34, 20, 20, 20), (0, 30, 44, 30, 16)]] * 4
    write_labels(folder / 'labels.json', [(60, 64)] * 4, boxes)
    rng = np.random.default_rng(0)
    for number in range(1, 5):
        picture = rng.integers(0, 80, (60, 64, 3), dtype=np.uint8)
        for label, x, y, width, height in boxes[0]:
            picture[y : y + height, x : x + width, label] += 120
        cv2.imwrite(str(folder / f'{number}.png'), picture)
    config = tiny_cast_config(pixel_weight=0.1)
    config.detector.panoptic_head.num_things_classes = 2
    config.detector.panoptic_head.loss_cls.class_weight = [1.0, 1.0, 0.1]
    config.detector.panoptic_fusion_head.num_things_classes = 2
    config.pixel_contrast.pool = 1
    text = CONFIG.format(folder=folder.as_posix()) + f'model = {json.dumps(config.to_dict())}\n'
    text = text.replace('true', 'True').replace('false', 'False').replace('null', 'None')
    (folder / 'step.py').write_text(text)
    for seed, name in enumerate('ab'):
        state = build_model(Config.fromfile(folder / 'step.py').model, seed).state_dict()
        if name == 'b':
            state = {key: value for key, value in state.items() if 'pixel_contrast' not in key}
        torch.save(dict(state_dict=state), folder / f'{name}.pth')
    return [str(folder / 'step.py'), f'a={folder}/a.pth', f'b={folder}/b.pth', '--device', 'cpu']


def command(*arguments):
    with reporting_errors_anew():
        pixel_loss.main(arguments)


def test_samples_are_drawn_and_counted(run, tmp_path, capsys):
    options = ['--out-dir', str(tmp_path), '--batches', '2', '--rows', '2']
    command('samples', *run, *options)
    output = capsys.readouterr().out
    for name in 'ab':
        assert cv2.imread(str(tmp_path / f'samples_{name}.png')).std() > 10
    assert 'b.pth has no projector for this config' in output
    assert 'on padding' in output and '12 of 12 labeled instances' in output
    rows = re.findall(r'^ {4}(\S.*?)  +(-?[\d.]+) \(.*?\) +(-?[\d.]+) \(', output, re.MULTILINE)
    assert len(rows) == 2 * (7 + 5)  # two checkpoints, anchors on instances and on none
    first = [tuple(map(float, row[1:])) for row in rows[:7]]
    assert np.sum(first, axis=0) == pytest.approx([100, 100], abs=0.4)
    with pytest.raises(SystemExit, match='exists and is not overwritten'):
        command('samples', *run, *options)


def test_gradients_of_a_checkpoint_and_itself_are_equal(run, capsys):
    config, first, _, *device = run
    again = first.replace('a=', 'again=', 1)
    command('gradients', config, first, again, *device, '--batches', '2', '--progress', '0.5')
    _, *tables = re.split(r'^(?:a|again): ', capsys.readouterr().out, flags=re.MULTILINE)
    assert tables[0] == tables[1]
    assert tables[0].startswith('2 batches of 2, l_pxl 0.1, temperature 0.185')
    assert 'gradient of weights of backbone' in tables[0]


def test_another_map_than_that_of_the_run_has_a_random_projector(run):
    cfg = Config.fromfile(run[0])
    path = run[1].removeprefix('a=')
    trained = pixel_loss.load_subject(cfg, 'a', path, 'cpu', seed=0)
    cfg.model.pixel_contrast.embed_dims = 4
    other = pixel_loss.load_subject(cfg, 'a', path, 'cpu', seed=0)
    assert (trained.has_projector, other.has_projector) == (True, False)
    weights = [subject.model.detector.state_dict() for subject in (trained, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_features_of_a_checkpoint_and_itself_do_not_differ(run, capsys):
    config, first, _, *device = run
    again = first.replace('a=', 'again=', 1)
    maps = ['--maps', 'encoder.3', 'pixel_decoder.-1', 'embedding', '--images', '3']
    command('features', config, first, again, *device, *maps)
    output = capsys.readouterr().out
    assert re.findall(r'^(\S+), \d+x\d+ in the first', output, re.MULTILINE) == [
        'encoder.3',
        'pixel_decoder.3',
        'embedding',
    ]
    assert '3 validation images, probes of 4 labeled images' in output
    assert output.count('+0.000 (+0.000 to +0.000)') == 3 * 7


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (['--cfg-options', 'model.pixel_contrast=None'], 'has no pixel loss'),
        (['--cfg-options', 'model.pixel_contrast.loss_weight=0'], 'has no pixel loss'),
        (['--cfg-options', 'model.teacher=detector'], 'has an online teacher'),
        (['--cfg-options', 'model.detector.backbone.frozen_stages=4'], 'its encoder is frozen'),
    ],
)
def test_what_cannot_be_looked_at_is_said(run, change, message):
    with pytest.raises(SystemExit, match=message):
        command('gradients', *run[:2], *change)


def test_a_map_that_is_not_there_is_named(run):
    with pytest.raises(SystemExit, match='--maps encoder.7 is none'):
        command('features', *run[:2], '--images', '1', '--maps', 'encoder.7')
