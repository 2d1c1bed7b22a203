"""The objective: which images feed which term, where gradients go, and that processes agree."""

from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.logging import MessageHub
from mmengine.model import MMDistributedDataParallel
from mmengine.runner.checkpoint import load_checkpoint
from mmengine.structures import InstanceData, PixelData
from tiny_teacher import teacher_config

from mmcast.errors import CASTError, NonFiniteError
from mmcast.masks.overlaps import resolve_overlaps
from mmcast.models.cast import training_progress
from mmcast.models.outputs import CASTNetwork, NetworkOutputs, PixelDecodingNetwork
from mmcast.testing.data import make_samples, same_points
from mmcast.testing.models import build_model, tiny_cast_config, tiny_student_config

MIXED = ['labeled', 'pseudo', 'pseudo', 'labeled']


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def backward(model, images, samples, seed=7):
    """Losses and gradients of one step with seeded points."""
    torch.manual_seed(seed)
    model.zero_grad()
    losses = model.loss(images, samples)
    sum(losses.values()).backward()
    return losses, gradients(model)


# With all weights zero it is the plain detector


def test_without_weights_losses_and_gradients_are_the_plain_detectors():
    cast, plain = build_model(tiny_cast_config()), build_model(tiny_student_config())
    plain.load_state_dict(cast.detector.state_dict())
    images, samples = make_samples([2, 3])
    losses, grads = backward(cast, images, samples)
    plain_losses, plain_grads = backward(plain, images, samples)
    assert {key.removeprefix('sup_') for key in losses} == set(plain_losses)
    assert all(torch.equal(losses['sup_' + key], plain_losses[key]) for key in plain_losses)
    assert set(grads) == {'detector.' + key for key in plain_grads}
    assert all(torch.equal(grads['detector.' + key], plain_grads[key]) for key in plain_grads)


def test_without_weights_unlabeled_images_change_nothing():
    cast = build_model(tiny_cast_config())
    images, samples = make_samples([2, 3, 2, 1], ['labeled', 'unlabeled', 'pseudo', 'labeled'])
    losses, grads = backward(cast, images, samples)
    alone, alone_grads = backward(cast, images[[0, 3]], [samples[0], samples[3]])
    assert all(torch.equal(losses[key], alone[key]) for key in alone)
    assert all(torch.equal(grads[key], alone_grads[key]) for key in alone_grads)


def test_predictions_are_the_students_alone():
    cast = build_model(tiny_cast_config(semi_weight=1.0, pixel_weight=0.1, teacher=True)).eval()
    images, samples = make_samples([2, 3])
    with torch.no_grad():
        ours = [s.pred_instances.clone() for s in cast.predict(images, samples)]
        theirs = [s.pred_instances for s in cast.detector.predict(images, samples)]
    for a, b in zip(ours, theirs):
        assert all(torch.equal(a[key], b[key]) for key in ('scores', 'labels', 'bboxes', 'masks'))


def test_predictions_can_be_the_teachers():
    config = tiny_cast_config(teacher=True)
    config.semi_test_cfg = dict(predict_on='teacher')
    cast = build_model(config).eval()
    images, samples = make_samples([2])
    ours = cast.predict(images, samples)[0].pred_instances.scores
    assert torch.equal(ours, cast.teacher.predict(images, samples)[0].pred_instances.scores)
    assert not torch.equal(ours, cast.detector.predict(images, samples)[0].pred_instances.scores)


@pytest.mark.parametrize('predict_on', ['teacher', 'nobody'])
def test_predictions_of_a_network_that_is_not_there_are_refused(predict_on):
    with pytest.raises(CASTError, match=f"predict_on='{predict_on}'"):
        build_model(dict(tiny_cast_config(), semi_test_cfg=dict(predict_on=predict_on)))


@pytest.mark.parametrize('wrapped', [False, True], ids=['plain', 'CASTDetector'])
def test_checkpoints_of_both_kinds_load_into_the_student(tmp_path, wrapped):
    source = build_model(tiny_cast_config() if wrapped else tiny_student_config(), seed=1)
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'weights.pth')
    cast = build_model(tiny_cast_config())
    load_checkpoint(cast, str(tmp_path / 'weights.pth'), strict=True)
    expected = (source.detector if wrapped else source).state_dict()
    assert all(
        torch.equal(value, expected[key]) for key, value in cast.detector.state_dict().items()
    )


def test_plain_detectors_are_known_by_their_keys_and_others_stay_as_they_are():
    """A detector may itself have a part called teacher; what it lacks is not renamed into it."""
    plain, cast = build_model(tiny_student_config(), seed=1), build_model(tiny_cast_config())
    plain.teacher, cast.detector.teacher = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    state = dict(plain.state_dict(), other=torch.zeros(1))
    assert cast.load_state_dict(state, strict=False).unexpected_keys == ['other']
    assert all(torch.equal(value, state[key]) for key, value in cast.detector.state_dict().items())


# Terms and their keys


@pytest.mark.parametrize('semi, pixel', [(0, 0), (1, 0), (0, 0.1), (1, 0.1)])
def test_keys_depend_on_the_config_and_never_on_the_batch(semi, pixel):
    cast = build_model(tiny_cast_config(semi_weight=semi, pixel_weight=pixel))
    keys = []
    for sources in (MIXED[:2], ['labeled'] * 2, ['pseudo'] * 2):
        losses = cast.loss(*make_samples([2, 1], sources))
        keys.append(list(losses))
        empty = dict(zip(('sup_', 'unsup_'), ('labeled' not in sources, 'pseudo' not in sources)))
        for key, loss in losses.items():
            assert loss.requires_grad and loss.isfinite()
            assert (loss == 0) == empty.get(key.split('_')[0] + '_', False)
    assert keys[0] == keys[1] == keys[2]
    assert {key.split('_')[0] for key in keys[0]} == (
        {'sup'} | ({'unsup'} if semi else set()) | ({'loss'} if pixel else set())
    )


def test_every_parameter_has_a_gradient_when_a_subset_is_empty():
    """Zeros with a graph: DDP would wait for parameters that are left out."""
    cast = build_model(tiny_cast_config(semi_weight=1.0, pixel_weight=0.1))
    for sources in (['labeled'], ['pseudo']):
        backward(cast, *make_samples([2], sources))
        assert all(p.grad is not None for p in cast.parameters())


def test_semi_weight_scales_the_unsupervised_terms_only():
    images, samples = make_samples([2, 3, 1, 2], MIXED)
    losses = []
    for weight in (1.0, 0.25):
        with same_points():
            losses.append(build_model(tiny_cast_config(semi_weight=weight)).loss(images, samples))
    for key in losses[0]:
        factor = 0.25 if key.startswith('unsup_') else 1
        torch.testing.assert_close(losses[1][key], factor * losses[0][key])


def test_accumulated_batches_of_one_source_are_the_objective_of_a_mixed_batch():
    """MMEngine divides each by their number, and L_pxl is in all of them."""
    cast = build_model(tiny_cast_config(semi_weight=0.5, pixel_weight=0.1))
    images, samples = make_samples([2, 3], ['labeled', 'pseudo'])
    with same_points():
        whole = cast.loss(images, samples)
        torch.manual_seed(0)
        plain = cast.loss(images[:1], samples[:1])
        cast.label_weights = (2.0, 2.0)
        torch.manual_seed(0)
        halves = [cast.loss(images[i : i + 1], samples[i : i + 1]) for i in range(2)]
    assert halves[0].pop('loss_pxl') == plain['loss_pxl']
    for key in halves[0]:
        found = sum(half[key] for half in halves) / 2
        torch.testing.assert_close(found, whole[key], rtol=1e-4, atol=1e-5)


def test_subsets_get_the_losses_that_they_would_get_alone():
    cast = build_model(tiny_cast_config(semi_weight=1.0))
    images, samples = make_samples([2, 3, 1, 2], MIXED)
    with same_points():
        losses = cast.loss(images, samples)
        sup = cast.detector.loss(images[[0, 3]], [samples[0], samples[3]])
        unsup = cast.detector.loss(images[[1, 2]], samples[1:3])
    for key in sup:
        torch.testing.assert_close(losses['sup_' + key], sup[key], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(losses['unsup_' + key], unsup[key], rtol=1e-5, atol=1e-6)


def test_a_missing_source_means_labeled():
    cast = build_model(tiny_cast_config(semi_weight=1.0))
    losses = cast.loss(*make_samples([2, 1]))
    assert losses['sup_loss_mask'] > 0 and losses['unsup_loss_mask'] == 0


# Online pseudo-labels


def test_unlabeled_images_without_teacher_are_refused():
    cast = build_model(tiny_cast_config(semi_weight=1.0))
    with pytest.raises(CASTError, match='set teacher= in CASTDetector'):
        cast.loss(*make_samples([0], ['unlabeled']))


def detector_with_predictions(scores, masks, **semi_train_cfg):
    cast = build_model(tiny_cast_config(semi_weight=1.0, teacher=True, **semi_train_cfg))
    prediction = InstanceData(
        scores=torch.tensor(scores),
        labels=torch.arange(len(scores)) % 3,
        masks=torch.from_numpy(np.array(masks, dtype=bool).reshape(-1, 48, 60)),
    )

    def predict(inputs, samples, rescale):
        assert not rescale and len(inputs) == len(samples)
        for sample in samples:
            sample.pred_instances = prediction
        return samples

    cast.teacher.predict = predict
    return cast


def rectangle(top, bottom, left, right):
    mask = np.zeros((48, 60), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def test_online_labels_are_confident_disjoint_and_on_the_padded_canvas():
    masks = [
        rectangle(0, 10, 0, 10),
        rectangle(0, 10, 5, 15),
        rectangle(2, 8, 6, 9),
        rectangle(20, 30, 0, 60),
        rectangle(40, 41, 0, 2),
    ]
    cast = detector_with_predictions([0.6, 0.9, 0.8, 0.3, 0.9], masks, score_thr=0.3, min_area=3)
    images, samples = make_samples([1, 0], ['labeled', 'unlabeled'])
    labeled = samples[0].gt_instances
    assert cast.loss(images, samples)['unsup_loss_mask'] > 0
    gt = samples[1].gt_instances
    # The first keeps what the second leaves; the third is covered, the fourth not above 0.3, the
    # fifth small.
    assert gt.labels.tolist() == [0, 1]
    assert gt.masks.masks.shape == (2, 64, 64)
    assert np.array_equal(gt.masks.masks[0, :48, :60], rectangle(0, 10, 0, 5))
    assert np.array_equal(gt.masks.masks[1, :48, :60], masks[1])
    assert gt.bboxes.tolist() == [[0, 0, 5, 10], [5, 0, 15, 10]]
    assert samples[0].gt_instances is labeled and 'pred_instances' not in samples[1]


def two_preprocessors():
    """A student and a teacher who want the same photos in different ways, and two such photos."""
    config = tiny_cast_config(semi_weight=1.0, teacher=True, score_thr=0.0)
    config.teacher.data_preprocessor = dict(
        type='DetDataPreprocessor',
        mean=[10.0, 90.0, 200.0],
        std=[30.0, 50.0, 80.0],
        bgr_to_rgb=False,
        pad_size_divisor=32,
        pad_value=1.0,
    )
    pixels, samples = make_samples([0, 0], ['unlabeled'] * 2, size=(40, 72))
    for sample, shape in zip(samples, [(40, 72), (40, 58)]):
        sample.set_metainfo(dict(img_shape=shape, ori_shape=(shape[0] * 2, shape[1] * 2)))
    pixels = [
        (image * 60 + 128).clamp(0, 255).byte()[:, : sample.img_shape[0], : sample.img_shape[1]]
        for image, sample in zip(pixels, samples)
    ]
    return build_model(config).eval(), pixels, samples


def directly(network, pixels, samples, rescale):
    """What a detector alone predicts on photos."""
    data = dict(inputs=list(pixels), data_samples=[sample.new(data={}) for sample in samples])
    data = network.data_preprocessor(data, False)
    with torch.no_grad():
        found = network.predict(data['inputs'], data['data_samples'], rescale=rescale)
    return [sample.pred_instances for sample in found]


def check_alike(ours, theirs):
    """But for the rounding of a normalisation that was undone."""
    ours, theirs = ours[ours.scores.argsort()], theirs[theirs.scores.argsort()]
    torch.testing.assert_close(ours.scores, theirs.scores, rtol=1e-3, atol=1e-4)
    assert len(ours) and torch.equal(ours.labels, theirs.labels)
    assert ours.masks.shape == theirs.masks.shape
    assert (ours.masks != theirs.masks).float().mean() < 1e-3


@pytest.mark.parametrize('rescale', [False, True])
def test_the_teacher_predicts_what_it_predicts_on_the_photos_themselves(rescale):
    cast, pixels, samples = two_preprocessors()
    expected = directly(cast.teacher, pixels, samples, rescale)
    cast.predict_on = 'teacher'
    data = cast.data_preprocessor(dict(inputs=pixels, data_samples=samples), False)
    assert data['inputs'].shape == (2, 3, 40, 72)  # the teacher's are padded to (64, 96)
    with torch.no_grad():
        found = cast.predict(data['inputs'], data['data_samples'], rescale)
    for one, other, sample in zip(found, expected, data['data_samples']):
        check_alike(one.pred_instances, other)
        size = sample.ori_shape if rescale else sample.img_shape
        assert one is sample and one.pred_instances.masks.shape[1:] == size
        assert one.batch_input_shape == (40, 72)  # the student's stays
    # The test can tell the difference: the student's tensor gives other scores.
    with torch.no_grad():
        wrong = cast.teacher.predict(data['inputs'], [s.new() for s in samples])[0].pred_instances
    assert (wrong.scores.sort().values - expected[0].scores.sort().values).abs().max() > 1e-3


def test_online_labels_are_those_of_the_photos_on_the_students_canvas():
    cast, pixels, samples = two_preprocessors()
    expected = [
        cast.online.choose(found, (40, 72))
        for found in directly(cast.teacher, pixels, samples, rescale=False)
    ]
    data = cast.data_preprocessor(dict(inputs=pixels, data_samples=samples), True)
    cast.label_online(data['inputs'], samples, ['unlabeled'] * 2)
    for sample, other in zip(samples, expected):
        gt = sample.gt_instances
        assert gt.masks.masks.shape == other.masks.masks.shape and len(gt)
        assert gt.masks.masks.shape[1:] == (40, 72)
        assert (gt.masks.masks != other.masks.masks).mean() < 1e-3
    assert cast.loss(data['inputs'], samples)['unsup_loss_mask'] > 0


@pytest.mark.parametrize('preprocessor', ['the same', None], ids=str)
def test_a_teacher_with_the_students_preprocessor_or_none_sees_the_students_tensor(preprocessor):
    config = tiny_cast_config(semi_weight=1.0, teacher=True)
    if preprocessor is None:
        config.teacher.pop('data_preprocessor')
    cast = build_model(config)
    images, samples = make_samples([0], ['unlabeled'])
    with mock.patch.object(cast.teacher, 'predict', return_value=[]) as predict:
        cast.label_online(images, samples, ['unlabeled'])
    assert torch.equal(predict.call_args.args[0], images)
    assert 'gt_instances' not in predict.call_args.args[1][0]


def test_a_preprocessor_of_its_own_is_the_networks_too():
    """GroundedSAM undoes the normalisation by its own data preprocessor's figures."""
    config = tiny_cast_config()
    config.data_preprocessor = dict(
        config.detector.data_preprocessor, mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0]
    )
    cast = build_model(config)
    assert cast.detector.data_preprocessor.mean.flatten().tolist() == [1, 2, 3]
    assert cast.data_preprocessor.std.flatten().tolist() == [4, 5, 6]


def test_an_image_in_which_the_teacher_sees_nothing_trains_as_an_empty_one():
    cast = detector_with_predictions([0.1], [rectangle(0, 9, 0, 9)], score_thr=0.3)
    images, samples = make_samples([1, 0], ['labeled', 'unlabeled'])
    losses = cast.loss(images, samples)
    assert len(samples[1].gt_instances) == 0
    assert losses['unsup_loss_cls'] > 0 and losses['unsup_loss_mask'] == 0


def test_during_the_burn_in_labels_and_files_teach_and_unlabeled_images_do_not():
    cast = build_model(tiny_cast_config(semi_weight=1.0, teacher=True, score_thr=0.0))
    cast.labels_online = False
    images, samples = make_samples([2, 0, 1], ['labeled', 'unlabeled', 'pseudo'])
    losses, grads = backward(cast, images, samples)
    assert losses['online_images'] == losses['online_labels'] == 0
    assert losses['unsup_loss_mask'] > 0
    _, alone = backward(cast, images[[0, 2]], [samples[0], samples[2]])
    assert all(torch.equal(grads[key], alone[key]) for key in alone)
    cast.labels_online = True
    assert backward(cast, images, samples)[0]['online_images'] == 1


def test_during_the_burn_in_a_batch_without_any_label_gives_zeros_with_a_graph():
    cast = build_model(tiny_cast_config(semi_weight=1.0, teacher=True))
    cast.labels_online = False
    losses, grads = backward(cast, *make_samples([0, 0], ['unlabeled'] * 2))
    assert not any(losses.values()) and len(grads) == len(list(cast.detector.parameters()))


@pytest.mark.parametrize(
    'file_labels, images, added, labels',
    [('keep', 1, 2, [0]), ('merge', 2, 3, [0, 1]), ('replace', 2, 4, [0, 1])],
)
def test_labels_of_a_file_are_kept_added_to_or_replaced(file_labels, images, added, labels):
    """The file has the teacher's first object and nothing of its second."""
    masks = [rectangle(0, 20, 0, 20), rectangle(30, 40, 30, 50)]
    cast = detector_with_predictions([0.9, 0.8], masks, file_labels=file_labels)
    inputs, samples = make_samples([1, 0, 1], ['labeled', 'unlabeled', 'pseudo'])
    canvas = np.zeros((1, 64, 64), dtype=np.uint8)
    canvas[0, :18, :20] = 1
    samples[2].gt_instances.masks.masks = canvas
    samples[2].gt_instances.labels[:] = 0
    samples[2].gt_sem_seg = PixelData(sem_seg=torch.full((1, 64, 64), 100))
    losses = cast.loss(inputs, samples)
    assert (losses['online_images'], losses['online_labels']) == (images, added)
    found = samples[2].gt_instances
    assert found.labels.tolist() == labels
    assert found.masks.masks[0].sum() == (20 * 20 if file_labels == 'replace' else 18 * 20)
    # Of the file's teacher are the confidences too.
    assert ('gt_sem_seg' in samples[2]) == (file_labels != 'replace')


def test_the_teacher_sees_the_weak_view_and_the_student_the_strong_one():
    strong = dict(type='PhotometricStrongView')
    config = tiny_cast_config(semi_weight=1.0, teacher=True, score_thr=0.0, strong_view=strong)
    cast = build_model(config)
    images, samples = make_samples([2, 0, 1], ['labeled', 'unlabeled', 'pseudo'])
    before = images.clone()
    seen = {}
    student, teacher = cast.detector.forward_once, cast.teacher.predict

    def forward_once(inputs, samples):
        seen['student'] = inputs
        return student(inputs, samples)

    def predict(inputs, *args, **kwargs):
        seen['teacher'] = inputs
        return teacher(inputs, *args, **kwargs)

    with mock.patch.object(cast.detector, 'forward_once', forward_once):
        with mock.patch.object(cast.teacher, 'predict', predict):
            torch.manual_seed(5)
            cast.loss(images, samples)
    torch.manual_seed(5)
    mean, std = cast.data_preprocessor.mean, cast.data_preprocessor.std
    assert torch.equal(seen['teacher'], before[1:2]) and torch.equal(images, before)
    assert torch.equal(seen['student'][0], before[0])
    assert torch.equal(seen['student'][1:], cast.strong_view(before[1:], mean, std))


def test_the_weight_of_what_the_teacher_labels_grows_over_its_ramp():
    cast = build_model(tiny_cast_config(semi_weight=2.0, ramp=(100, 300)))
    hub = MessageHub.get_instance('test_ramp')
    weights = []
    with mock.patch.object(MessageHub, 'get_current_instance', return_value=hub):
        for iteration in (0, 100, 150, 299, 300, 1000):
            hub.update_info('iter', iteration)
            weights.append(cast.semi_weight())
        assert weights == pytest.approx([0, 0, 0.5, 1.99, 2, 2])
        hub.update_info('iter', 150)
        images, samples = make_samples([2, 1], ['labeled', 'pseudo'])
        with same_points():
            losses = cast.loss(images, samples)
            alone = cast.detector.loss(images[1:], samples[1:])
    torch.testing.assert_close(losses['unsup_loss_mask'], 0.5 * alone['loss_mask'])


def test_a_teacher_can_be_said_to_be_like_the_detector():
    config = tiny_cast_config(semi_weight=1.0)
    cast = build_model(dict(config, teacher='detector'))
    shapes = [
        {k: v.shape for k, v in net.state_dict().items()} for net in (cast.detector, cast.teacher)
    ]
    assert shapes[0] == shapes[1]
    assert not any(p.requires_grad for p in cast.teacher.parameters())


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(class_score_threshold=0.7), 'has no class_score_threshold; .*class_score_thr'),
        (dict(file_labels='drop'), "file_labels='drop': choose one of keep, merge, replace"),
        (dict(file_labels='merge'), 'the last two with teacher= set'),
        (dict(ramp=(200, 100)), 'ramp=.*the first below the second'),
    ],
    ids=str,
)
def test_settings_of_the_online_teacher_that_mean_nothing_are_refused(options, message):
    with pytest.raises(CASTError, match=message):
        build_model(tiny_cast_config(semi_weight=1.0, **options))


def test_a_strong_view_insists_on_knowing_the_normalisation():
    config = tiny_cast_config(semi_weight=1.0, strong_view=dict(type='PhotometricStrongView'))
    config.detector.data_preprocessor.pop('mean')
    config.detector.data_preprocessor.pop('std')
    with pytest.raises(CASTError, match='semi_train_cfg.strong_view makes strong views'):
        build_model(config)


def test_the_teacher_is_frozen_and_in_eval_mode_whatever_happens():
    cast = build_model(
        tiny_cast_config(semi_weight=1.0, pixel_weight=0.1, teacher=True, score_thr=0.0)
    )
    cast.train()
    assert cast.detector.training and not any(m.training for m in cast.teacher.modules())
    before = {key: value.clone() for key, value in cast.teacher.state_dict().items()}
    _, grads = backward(cast, *make_samples([2, 0], ['labeled', 'unlabeled']))
    assert not any(name.startswith('teacher.') for name in grads)
    assert all(torch.equal(before[key], value) for key, value in cast.teacher.state_dict().items())


def test_overlaps_go_to_the_higher_score_and_ties_to_the_earlier():
    masks = np.array([[[1, 1, 0, 0]], [[1, 1, 1, 0]], [[0, 1, 1, 1]], [[1, 0, 0, 0]]], dtype=bool)
    resolved = resolve_overlaps(masks, np.array([0.5, 0.9, 0.9, 0.1]))
    assert resolved.astype(int).tolist() == [
        [[0, 0, 0, 0]],
        [[1, 1, 1, 0]],
        [[0, 0, 0, 1]],
        [[0, 0, 0, 0]],
    ]
    assert resolve_overlaps(masks[:0], np.zeros(0)).shape == (0, 1, 4)


# The pixel loss


def pixel_gradients(cast, images, samples, term='loss_pxl'):
    cast.zero_grad()
    torch.manual_seed(3)
    cast.loss(images, samples)[term].backward()
    return gradients(cast)


def test_pixel_loss_teaches_encoder_and_projector_and_not_the_decoder():
    cast = build_model(tiny_cast_config(pixel_weight=0.1))
    grads = pixel_gradients(cast, *make_samples([2, 1]))
    touched = {name.split('.')[1] for name, grad in grads.items() if grad.any()}
    assert touched == {'backbone', 'projector'}
    assert all(grads[f'pixel_contrast.projector.{i}.weight'].any() for i in (0, 2, 4))


@pytest.mark.parametrize('level, stride', enumerate([16, 8, 4, 2]))
def test_pixel_loss_on_any_map_of_the_pixel_decoder(level, stride):
    """64 x 64 pixels, patches of 8; the finest map is that of the masks. The pixel decoder learns
    too.
    """
    config = tiny_cast_config(pixel_weight=0.1)
    config.pixel_contrast.update(source='pixel_decoder', feature_index=level, pool=1)
    cast = build_model(config)
    sizes = []
    cast.pixel_contrast.observer = lambda z_weak, *_: sizes.append(tuple(z_weak.shape[-2:]))
    grads = pixel_gradients(cast, *make_samples([2, 1]))
    assert sizes == [(64 // stride, 64 // stride)]
    assert any(grad.any() for name, grad in grads.items() if 'pixel_decoder' in name)
    assert not any(grad.any() for name, grad in grads.items() if 'transformer_decoder' in name)


def test_the_foundation_teacher_has_no_pixel_decoder_to_contrast(tmp_path):
    detector = teacher_config(tmp_path)
    config = dict(
        type='CASTDetector',
        detector=detector,
        pixel_contrast=dict(in_channels=256, source='pixel_decoder'),
    )
    with pytest.raises(
        CASTError, match="GroundedSAM has no pixel decoder .*; set source='encoder'"
    ):
        build_model(config)


def test_student_and_foundation_teacher_offer_what_the_detector_asks_for(tmp_path):
    """Both are of the documented type, and their outputs too."""
    student, teacher = build_model(tiny_student_config()), build_model(teacher_config(tmp_path))
    assert isinstance(student, PixelDecodingNetwork)
    assert isinstance(teacher, CASTNetwork) and not isinstance(teacher, PixelDecodingNetwork)
    images, samples = make_samples([1, 2])
    for network in (student, teacher.train()):
        outputs = network.forward_once(images, samples)
        assert isinstance(outputs, NetworkOutputs)
        masks, classes = outputs.mask_logits[-1], outputs.class_logits[-1]
        assert masks.ndim == 4 and masks.shape[:2] == classes.shape[:2] and classes.shape[2] == 4


def test_the_strong_pass_sends_nothing_into_the_encoder():
    """The encoder's gradient is that of a hand-made loss whose strong features are constants."""
    cast = build_model(tiny_cast_config(pixel_weight=0.1))
    images, samples = make_samples([2, 1])
    strong = images.flip(1) * 0.5
    with mock.patch.object(cast.pixel_contrast.strong_view, 'forward', lambda *_: strong):
        with mock.patch.object(cast.detector, 'loss_on', return_value={}):
            grads = pixel_gradients(cast, images, samples)
    cast.zero_grad()
    torch.manual_seed(3)
    contrast, detector = cast.pixel_contrast, cast.detector
    outputs = detector.forward_once(images, samples)
    constants = contrast.project(detector.extract_feat(strong)).detach()
    (
        0.1
        * contrast.loss(
            contrast.project(outputs.features),
            constants,
            outputs.mask_logits[-1],
            outputs.class_logits[-1],
            0.0,
        )
    ).backward()
    for name, p in detector.backbone.named_parameters():
        torch.testing.assert_close(grads['detector.backbone.' + name], p.grad, rtol=1e-5, atol=1e-7)


def test_the_strong_pass_ends_at_the_contrasted_map_with_the_same_loss():
    config = tiny_cast_config(pixel_weight=0.1)
    config.detector.backbone = dict(
        type='TimmEncoder', name='resnet18', channels=(8, 16, 24, 32), layers=(1, 1, 1, 1)
    )
    head = config.detector.panoptic_head
    head.in_channels = head.pixel_decoder.scales = None
    config.pixel_contrast.update(in_channels=None, pool=1, feature_index=1)
    cast = build_model(config).train()
    images, samples = make_samples([2, 1])
    passes = []
    for stage in ('layer2', 'layer3'):
        cast.detector.backbone.model.get_submodule(stage).register_forward_hook(
            lambda *_, stage=stage: passes.append(stage)
        )
    losses, grads = backward(cast, images, samples)
    assert passes == ['layer2', 'layer3', 'layer2']
    student = type(cast.detector)
    with mock.patch.object(student, 'extract_first_maps', lambda s, x, n: s.extract_feat(x)):
        whole, whole_grads = backward(cast, images, samples)
    assert passes.count('layer3') == 3 and all(torch.equal(losses[k], whole[k]) for k in whole)
    assert all(torch.equal(grads[name], whole_grads[name]) for name in whole_grads)


@pytest.mark.parametrize('norm_eval', [False, True])
def test_batch_norm_remembers_the_weak_view_only_and_treats_both_views_alike(norm_eval):
    config = tiny_cast_config(pixel_weight=0.1)
    config.detector.backbone = dict(
        type='ResNet',
        depth=18,
        base_channels=8,
        stem_channels=8,
        norm_cfg=dict(type='BN'),
        norm_eval=norm_eval,
    )
    head = config.detector.panoptic_head
    head.in_channels, head.pixel_decoder.scales = [8, 16, 32, 64], (1, 1, 1, 1)
    config.pixel_contrast.update(in_channels=64, pool=1)
    cast, weak_only = build_model(config).train(), build_model(config).train()
    images, samples = make_samples([2, 1])
    weak = weak_only.detector.extract_feat(images)
    with mock.patch.object(
        cast.pixel_contrast, 'forward', return_value=torch.tensor(0.0)
    ) as contrast:
        with mock.patch.object(cast.pixel_contrast.strong_view, 'forward', lambda x, *_: x):
            cast.loss(images, samples)
        assert all(torch.equal(a, b) for a, b in zip(contrast.call_args.args[1], weak))
        cast.loss(images, samples)  # the next weak pass is remembered again
    weak_only.detector.extract_feat(images)
    for name, buffer in weak_only.detector.backbone.named_buffers():
        assert torch.equal(cast.detector.backbone.get_buffer(name), buffer)


def test_strong_view_gets_the_images_and_the_normalisation_of_the_preprocessor():
    cast = build_model(tiny_cast_config(pixel_weight=0.1))
    images, samples = make_samples([1])
    with mock.patch.object(
        cast.pixel_contrast.strong_view, 'forward', side_effect=lambda x, *_: x
    ) as view:
        cast.loss(images, samples)
    inputs, mean, std = view.call_args.args
    assert inputs is images
    assert mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])


def test_unlabeled_images_take_part_in_the_pixel_loss_without_semi_weight():
    """L_pxl needs no labels: another unlabeled image, another loss."""
    cast = build_model(tiny_cast_config(pixel_weight=0.1))
    images, samples = make_samples([2, 0], ['labeled', 'unlabeled'])
    losses = []
    for last in (images[1], -images[1]):
        torch.manual_seed(3)
        losses.append(cast.loss(torch.stack([images[0], last]), samples)['loss_pxl'])
    assert losses[0] != losses[1]


def test_projector_exists_only_where_the_pixel_loss_is_on():
    assert not any('pixel_contrast' in key for key in build_model(tiny_cast_config()).state_dict())


def test_progress_is_that_of_the_running_loop():
    hub = MessageHub.get_instance('test_progress')
    with mock.patch.object(MessageHub, 'get_current_instance', return_value=hub):
        assert training_progress() == 0
        hub.update_info('max_iters', 40)
        hub.update_info('iter', 10)
        assert training_progress() == 0.25


def test_mixed_precision_gives_finite_gradients_to_everything():
    """A cast weight that autocast caches under no_grad, in the strong pass, would lose its
    gradient.
    """
    cast = build_model(
        tiny_cast_config(semi_weight=1.0, pixel_weight=0.1, teacher=True, score_thr=0.0)
    )
    images, samples = make_samples([2, 0], ['labeled', 'unlabeled'])
    with torch.autocast('cpu', torch.bfloat16):
        losses = cast.loss(images, samples)
    sum(losses.values()).backward()
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    trained = [p for name, p in cast.named_parameters() if not name.startswith('teacher.')]
    assert all(p.grad.isfinite().all() and p.grad.any() for p in trained)


# What must not go unnoticed


def test_a_term_that_is_not_finite_is_named_with_its_images():
    cast = build_model(tiny_cast_config(semi_weight=1.0))
    images, samples = make_samples([1, 0], ['labeled', 'pseudo'])
    sup = dict(loss_cls=torch.tensor(1.0))
    unsup = dict(loss_cls=torch.tensor(float('nan')), loss_mask=torch.tensor(2.0))
    with mock.patch.object(cast.detector, 'loss_on', side_effect=[sup, unsup]):
        with pytest.raises(
            NonFiniteError, match='not finite: unsup_loss_cls on the images.*image_1.png'
        ):
            cast.loss(images, samples)


def test_an_image_that_breaks_the_pixel_loss_is_named():
    cast = build_model(tiny_cast_config(pixel_weight=0.1))
    images, samples = make_samples([1, 2, 1])
    view = cast.pixel_contrast.strong_view
    with mock.patch.object(
        view, 'forward', lambda x, *_: x.index_fill(0, torch.tensor([1]), float('inf'))
    ):
        with pytest.raises(NonFiniteError, match='z_strong of loss_pxl on the images image_1.png;'):
            cast.loss(images, samples)


@pytest.mark.parametrize('missing', [['data_preprocessor'], ['mean', 'std']], ids=str)
def test_the_pixel_loss_insists_on_knowing_the_normalisation(missing):
    config = tiny_cast_config(pixel_weight=0.1)
    for name in missing:
        (config.detector if name == 'data_preprocessor' else config.detector.data_preprocessor).pop(
            name
        )
    with pytest.raises(CASTError, match='set mean and std in data_preprocessor'):
        build_model(config)
    config.pixel_contrast = None
    build_model(config)


def test_broken_weights_are_reported_with_the_images():
    cast = build_model(tiny_cast_config(pixel_weight=0.1))
    with torch.no_grad():
        cast.detector.backbone.cls_token.fill_(float('nan'))
    with pytest.raises(NonFiniteError, match='image_0.png'):
        cast.loss(*make_samples([1]))


# Two processes


def distributed_worker(rank, folder):
    """Each rank: its half of every batch through DDP, one step; gradients and parameters go to a
    file.
    """
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2
    )
    results = {}
    for name, (objects, sources, order, options) in DISTRIBUTED_CASES.items():
        images, samples = make_samples(objects, sources)
        mine = order[2 * rank : 2 * rank + 2]
        cast = build_model(tiny_cast_config(semi_weight=1.0, **options))
        model = MMDistributedDataParallel(cast)
        torch.manual_seed(rank)
        with same_points():
            losses = model(images[mine], [samples[i] for i in mine], mode='loss')
        sum(losses.values()).backward()
        grads = gradients(cast)
        torch.optim.SGD([p for p in cast.parameters() if p.requires_grad], lr=0.1).step()
        results[name] = dict(gradients=grads, parameters=cast.state_dict())
    torch.save(results, f'{folder}/rank{rank}.pth')
    dist.destroy_process_group()


ONLINE = dict(teacher=True, score_thr=0.0, file_labels='merge')
#: Objects in the images and their sources, which ranks get which (the first two are rank 0's),
#: options.
DISTRIBUTED_CASES = {
    'labeled here, pseudo there': ([2, 3, 1, 2], MIXED, [0, 3, 1, 2], {}),
    'mixed on both': ([2, 3, 1, 2], MIXED, [0, 1, 2, 3], {}),
    'no label anywhere': ([2, 3, 1, 2], ['pseudo'] * 4, [0, 1, 2, 3], {}),
    'fewer labeled objects than ranks': ([1, 3, 0, 0], MIXED, [0, 1, 2, 3], {}),
    'online labels here, a file there': (
        [2, 0, 1, 1],
        ['labeled', 'unlabeled', 'labeled', 'pseudo'],
        [0, 1, 2, 3],
        ONLINE,
    ),
    'pixel loss': ([2, 3, 1, 2], MIXED, [0, 3, 1, 2], dict(pixel_weight=0.1)),
}


@pytest.fixture(scope='module')
def distributed(tmp_path_factory):
    folder = tmp_path_factory.mktemp('gloo')
    mp.spawn(distributed_worker, (str(folder),), nprocs=2)
    return [torch.load(folder / f'rank{rank}.pth') for rank in range(2)]


@pytest.mark.parametrize('case', [name for name in DISTRIBUTED_CASES if name != 'pixel loss'])
def test_two_processes_on_halves_have_the_gradient_of_one(distributed, case):
    cast = build_model(tiny_cast_config(semi_weight=1.0, **DISTRIBUTED_CASES[case][3]))
    images, samples = make_samples(*DISTRIBUTED_CASES[case][:2])
    with same_points():
        expected = backward(cast, images, samples)[1]
    for rank in distributed:
        assert set(rank[case]['gradients']) == set(expected)
        for name, grad in expected.items():
            torch.testing.assert_close(rank[case]['gradients'][name], grad, rtol=1e-5, atol=1e-6)


def test_two_processes_agree_on_every_parameter_after_a_step_with_the_pixel_loss(distributed):
    ours, theirs = [rank['pixel loss']['parameters'] for rank in distributed]
    start = build_model(tiny_cast_config(semi_weight=1.0, pixel_weight=0.1)).state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in start)
    assert all(not torch.equal(ours[key], start[key]) for key in start if 'projector' in key)
