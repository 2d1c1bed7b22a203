# On top of the frozen teacher: the transfer step, in which the student's own average, after a burn-in on labels
# and pseudo-labels, adds the objects that the pseudo-labels lack.
_base_ = '../cityscapes_small/cityscapes_small_student_transfer.py'
model = dict(
    teacher='detector',
    semi_train_cfg=dict(
        file_labels='merge', score_thr=0, class_score_thr=0.7, min_area=80,
        strong_view=dict(type='PhotometricStrongView')),
    semi_test_cfg=dict(predict_on='teacher'))
# The teacher sees plain images, the student strong views of them.
weak = [transform for transform in _base_.train_pipeline if transform['type'] != 'PhotoMetricDistortion']
labeled, pseudo = _base_.semi_dataloader.dataset.datasets
data = dict(_base_.semi_dataloader.dataset, datasets=[labeled, dict(pseudo, pipeline=weak)])
train_dataloader = dict(_base_.semi_dataloader, _delete_=True, dataset=data)
custom_hooks = [*_base_.custom_hooks, dict(type='EMATeacherHook', momentum=0.99, burn_in=700, hand_over=True)]
