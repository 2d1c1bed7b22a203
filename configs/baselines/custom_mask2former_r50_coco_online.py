# The COCO-trained Mask2Former R-50 without a foundation teacher: on the labels alone (burn-in), then taught by its
# own average on the unlabeled images as well, as in Guided Distillation (arXiv 2308.02668).
_base_ = '../foundation/foundation_mask2former_r50_coco_transfer.py'
model = dict(
    teacher='detector',
    pixel_contrast=None,
    semi_train_cfg=dict(
        semi_weight=2.0, score_thr=0, class_score_thr=0.7, strong_view=dict(type='PhotometricStrongView')),
    semi_test_cfg=dict(predict_on='teacher'))
load_from = 'work_dirs/cast_custom_online/02_start/student.pth'  # fit_coco_student's; the pipeline puts its own here
# The teacher sees plain crops, the student strong views of them.
weak = [transform for transform in _base_.train_pipeline if transform['type'] != 'PhotoMetricDistortion']
labeled, pseudo = _base_.semi_dataloader.dataset.datasets
unlabeled = dict(labeled, type='UnlabeledDataset', ann_file=_base_.folder + 'unlabeled.json', pipeline=weak)
data = dict(_base_.semi_dataloader.dataset, datasets=[labeled, unlabeled])
train_dataloader = dict(_base_.semi_dataloader, _delete_=True, num_workers=4, dataset=data)
custom_hooks = [
    *_base_.custom_hooks, dict(type='EMATeacherHook', momentum=0.999, burn_in=2000, hand_over=True)]
