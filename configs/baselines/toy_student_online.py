# Without a foundation teacher: the same student, first on the 10 % of labels alone (burn-in), then taught by
# its own average on the unlabeled images as well, as in Guided Distillation (arXiv 2308.02668). Its decay of
# 0.9996 is for tens of thousands of iterations; a thousand want a shorter memory. Of a batch of six, two images
# are labeled and the others wait for the end of the burn-in, so that its iterations cost a third of the later ones.
_base_ = '../toy/toy_student_refine.py'
model = dict(
    teacher='detector',
    semi_train_cfg=dict(
        semi_weight=2.0, score_thr=0, class_score_thr=0.7, strong_view=dict(type='PhotometricStrongView')),
    semi_test_cfg=dict(predict_on='teacher'))
load_from = 'configs/toy/weights/toy_student.pth'
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_iters=1900, val_interval=380)
# The teacher sees plain crops, the student strong views of them.
weak = [transform for transform in _base_.train_pipeline if transform['type'] != 'PhotoMetricDistortion']
labeled, pseudo = _base_.semi_dataloader.dataset.datasets
unlabeled = dict(labeled, type='UnlabeledDataset', ann_file='annotations/unlabeled_10percent_seed0.json', pipeline=weak)
data = dict(_base_.semi_dataloader.dataset, datasets=[labeled, unlabeled])
train_dataloader = dict(_base_.semi_dataloader, _delete_=True, dataset=data)
custom_hooks = [*_base_.custom_hooks, dict(type='EMATeacherHook', momentum=0.99, burn_in=1200, hand_over=True)]
