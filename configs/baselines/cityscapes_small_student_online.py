# Without a foundation teacher: the same student, first on the labels alone (burn-in), then taught by its own average
# on the unlabeled images as well, as in Guided Distillation (arXiv 2308.02668); as many iterations as transfer and
# refinement together, read at its best checkpoint. Of a batch of six, two images are labeled.
_base_ = './cityscapes_small_student_supervised.py'
model = dict(
    teacher='detector',
    semi_train_cfg=dict(
        semi_weight=2.0, score_thr=0, class_score_thr=0.7, min_area=80,
        strong_view=dict(type='PhotometricStrongView')),
    semi_test_cfg=dict(predict_on='teacher'))
# The teacher sees plain images, the student strong views of them.
weak = [transform for transform in _base_.train_pipeline if transform['type'] != 'PhotoMetricDistortion']
labeled, pseudo = _base_.semi_dataloader.dataset.datasets
unlabeled = dict(labeled, type='UnlabeledDataset', ann_file=_base_.folder + 'unlabeled_10percent_seed0.json', pipeline=weak)
data = dict(_base_.semi_dataloader.dataset, datasets=[labeled, unlabeled])
train_dataloader = dict(_base_.semi_dataloader, _delete_=True, dataset=data)
custom_hooks = [*_base_.custom_hooks, dict(type='EMATeacherHook', momentum=0.99, burn_in=900, hand_over=True)]
