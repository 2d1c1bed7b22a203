# Without a foundation teacher: the student on the labels alone (burn-in), then taught by its own average on the
# unlabeled images as well: the settings of Guided Distillation (arXiv 2308.02668), which S4M (arXiv 2504.05301)
# and PL-DC (arXiv 2505.11075) build on, with CAST's student and schedule.
_base_ = '../cityscapes/cityscapes_student_transfer.py'
model = dict(
    teacher='detector',
    pixel_contrast=None,
    semi_train_cfg=dict(
        semi_weight=2.0, score_thr=0, class_score_thr=0.7, strong_view=dict(type='PhotometricStrongView')),
    semi_test_cfg=dict(predict_on='teacher'))
# The teacher sees plain crops, the student strong views of them.
weak = [transform for transform in _base_.train_pipeline if transform['type'] != 'PhotoMetricDistortion']
labeled, pseudo = _base_.semi_dataloader.dataset.datasets
unlabeled = dict(labeled, type='UnlabeledDataset', ann_file='work_dirs/cast_cityscapes/01_data/unlabeled_10percent_seed0.json', pipeline=weak)
data = dict(_base_.semi_dataloader.dataset, datasets=[labeled, unlabeled])
train_dataloader = dict(_base_.semi_dataloader, _delete_=True, dataset=data)
custom_hooks = [
    *_base_.custom_hooks, dict(type='EMATeacherHook', momentum=0.9996, burn_in=20000, hand_over=True)]
