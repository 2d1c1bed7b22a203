"""``save_best`` in real runs: which validation counts, which file is kept, and what is refused
when.
"""

import pytest
import torch
from toy_run import config

from mmcast.errors import CASTError
from mmcast.training.runner import train_run

SCORES = [
    {'coco/segm_mAP': 0.2, 'other/loss': 3.0},
    {'coco/segm_mAP': 0.5, 'other/loss': 1.0},
    {'coco/segm_mAP': 0.5, 'other/loss': 0.5},
    {'coco/segm_mAP': 0.1, 'other/loss': 2.0},
]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)


def run(
    folder,
    monkeypatch,
    scores=SCORES,
    iterations=None,
    resume=None,
    metric=None,
    validate=True,
    **checkpoint,
):
    """One iteration between two validations, which give these metrics one after the other."""
    numbers = iter(scores)
    monkeypatch.setattr('toy_run.ToyMetric.compute_metrics', lambda self, results: next(numbers))
    cfg = config(
        folder,
        iterations or len(scores),
        val_evaluator=metric or {},
        train_cfg=dict(val_interval=1),
        default_hooks=dict(checkpoint=dict(interval=1, **checkpoint)),
    )
    if not validate:
        for part in ('val_cfg', 'val_dataloader', 'val_evaluator'):
            cfg.pop(part)
    return train_run(cfg, resume)


def best(result):
    return result.metrics.get('coco/segm_mAP'), result.best_checkpoint.name


@pytest.mark.parametrize('save_best', ['coco/segm_mAP', 'auto', ['coco/segm_mAP']], ids=str)
def test_the_first_of_the_largest_counts_and_its_file_is_there(save_best, tmp_path, monkeypatch):
    result = run(tmp_path, monkeypatch, save_best=save_best)
    assert best(result) == (0.5, 'best_coco_segm_mAP_iter_2.pth')
    assert result.metrics == SCORES[1] and result.best_checkpoint.is_file()
    assert result.checkpoint.name == 'iter_4.pth'


@pytest.mark.parametrize('rule', ['less', None], ids=str)
def test_of_a_loss_the_smallest_counts(rule, tmp_path, monkeypatch):
    result = run(tmp_path, monkeypatch, save_best='other/loss', rule=rule)
    assert result.metrics == SCORES[2]
    assert result.best_checkpoint.name == 'best_other_loss_iter_3.pth'


def test_of_several_the_first_counts_and_each_has_its_rule(tmp_path, monkeypatch):
    result = run(
        tmp_path,
        monkeypatch,
        save_best=['other/loss', 'coco/segm_mAP'],
        rule=['less', 'greater'],
    )
    assert result.metrics == SCORES[2]
    assert result.best_checkpoint.name == 'best_other_loss_iter_3.pth'
    assert (tmp_path / 'best_coco_segm_mAP_iter_2.pth').is_file()


def test_a_resumed_run_knows_the_best_of_before(tmp_path, monkeypatch):
    run(tmp_path, monkeypatch, SCORES[:2], save_best='auto')
    last = tmp_path / 'iter_2.pth'
    result = run(tmp_path, monkeypatch, SCORES[3:], iterations=3, resume=last, save_best='auto')
    assert result.metrics == SCORES[1]
    assert best(result) == (0.5, 'best_coco_segm_mAP_iter_2.pth')


def test_a_validation_that_a_kill_cut_off_is_made_up_for(tmp_path, monkeypatch):
    """Its checkpoint was written, the second validation, the best one, did not end."""
    with pytest.raises(StopIteration):
        run(tmp_path, monkeypatch, SCORES[:1], iterations=4, save_best='auto')
    last = tmp_path / 'iter_2.pth'
    result = run(tmp_path, monkeypatch, SCORES[1:], iterations=4, resume=last, save_best='auto')
    assert result.metrics == SCORES[1]
    assert best(result) == (0.5, 'best_coco_segm_mAP_iter_2.pth')
    assert [path.name for path in tmp_path.glob('best*')] == ['best_coco_segm_mAP_iter_2.pth']
    known = torch.load(last, weights_only=False)['message_hub']['runtime_info']
    assert known['iterations_validated'] == [1, 2]  # a kill now would not have it held again


def test_a_resumed_run_validates_nothing_twice(tmp_path, monkeypatch):
    run(tmp_path, monkeypatch, SCORES[:2], save_best='auto')
    result = run(tmp_path, monkeypatch, [], 2, tmp_path / 'iter_2.pth', save_best='auto')
    assert result.metrics == SCORES[1]


@pytest.mark.parametrize('several', [False, True])
@pytest.mark.parametrize('damage', ['deleted', 'cut'])
def test_a_best_checkpoint_that_is_lost_is_found_anew(
    damage, several, tmp_path, monkeypatch, capsys
):
    """MMEngine deletes the previous best one before it writes the next."""
    save_best = dict(
        save_best=['coco/segm_mAP', 'other/loss'] if several else 'coco/segm_mAP',
        rule=['greater', 'less'] if several else None,
    )
    run(tmp_path, monkeypatch, SCORES[:2], **save_best)
    path = tmp_path / 'best_coco_segm_mAP_iter_2.pth'
    path.unlink() if damage == 'deleted' else path.write_bytes(path.read_bytes()[:1000])
    scores = [{'coco/segm_mAP': 0.3, 'other/loss': 4.0}, SCORES[3]]
    result = run(tmp_path, monkeypatch, scores, 3, tmp_path / 'iter_2.pth', **save_best)
    assert result.metrics == scores[0] and best(result) == (0.3, path.name)
    assert torch.load(path, weights_only=False)['meta']['iter'] == 2
    said = capsys.readouterr().out
    assert said.count('warning: the best checkpoint by') == 1 and path.name in said


def test_the_best_checkpoint_of_a_moved_folder_is_replaced_there(tmp_path, monkeypatch):
    run(tmp_path / 'old', monkeypatch, SCORES[:1], save_best='auto')
    (tmp_path / 'old').rename(tmp_path / 'new')
    last = tmp_path / 'new/iter_1.pth'
    result = run(tmp_path / 'new', monkeypatch, SCORES[1:2], 2, last, save_best='auto')
    assert best(result) == (0.5, 'best_coco_segm_mAP_iter_2.pth')
    assert list((tmp_path / 'new').glob('best*')) == [result.best_checkpoint]


def test_without_save_best_the_last_validation_counts(tmp_path, monkeypatch):
    result = run(tmp_path, monkeypatch)
    assert result.metrics == SCORES[3] and result.best_checkpoint is None


def test_validations_that_are_not_finite_or_empty_are_not_the_best(tmp_path, monkeypatch):
    scores = [{}, {'coco/segm_mAP': float('nan')}, {'coco/segm_mAP': 0.0}]
    result = run(tmp_path, monkeypatch, scores, save_best='coco/segm_mAP')
    assert best(result) == (0.0, 'best_coco_segm_mAP_iter_3.pth')
    result = run(tmp_path / 'none', monkeypatch, [{}, {}], save_best='coco/segm_mAP')
    assert result.metrics == {} and result.best_checkpoint is None


COCO = dict(type='mmdet.CocoMetric', metric='segm')


@pytest.mark.parametrize(
    'checkpoint, metric, message',
    [
        (dict(save_best='coco/bbox_mAP'), COCO, "'coco/bbox_mAP' is not a metric.*coco/segm_mAP"),
        (dict(save_best='coco/segm_map'), COCO, "'coco/segm_map' is not a metric"),
        (dict(save_best='mAP'), COCO, "'mAP' is not a metric"),
        (dict(save_best='coco/segm_mAP', rule='more'), COCO, 'rule must be greater, less or None'),
        (dict(save_best='coco/segm_IoU'), None, 'Cannot infer the rule for key'),
        (dict(save_best=['auto', 'coco/segm_mAP']), None, 'Only support one "auto"'),
    ],
    ids=str,
)
def test_what_can_be_known_is_refused_before_training(
    checkpoint, metric, message, tmp_path, monkeypatch
):
    monkeypatch.setattr('toy_run.ToyModel.train_step', None)  # training would fail otherwise
    monkeypatch.setattr('mmdet.evaluation.CocoMetric.process', None)
    with pytest.raises(CASTError, match=message):
        run(tmp_path, monkeypatch, metric=metric, **checkpoint)
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize(
    'name, message',
    [
        ('coco/segm_mAP_60', "'coco/segm_mAP_60': the validation gave coco/segm_mAP, other/loss"),
        ('auto', 'Cannot infer the rule for key strange'),
    ],
)
def test_what_is_not_known_before_is_refused_in_the_first_validation(
    name, message, tmp_path, monkeypatch
):
    scores = SCORES if name != 'auto' else [dict(strange=1.0)] * 4
    with pytest.raises(CASTError, match=message):
        run(tmp_path, monkeypatch, scores, save_best=name)
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_1.pth']


def test_save_best_without_validations_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr('toy_run.ToyModel.train_step', None)
    with pytest.raises(CASTError, match='needs a validation'):
        run(tmp_path, monkeypatch, validate=False, save_best='coco/segm_mAP')
