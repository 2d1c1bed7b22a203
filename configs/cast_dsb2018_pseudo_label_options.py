# What each option for better pseudo-labels changes with cast_dsb2018.py: labels of both generations with flip,
# with scales and with both, on 40 of the unlabeled images, next to those of the foundation teacher, on one page;
# and the teacher self-trained (1b) with and without confidence maps. There is no student.
_base_ = './cast_dsb2018.py'
work_dir = 'work_dirs/cast_dsb2018_pseudo_label_options'
off, on = dict(flip=False, scales=[1.0]), dict(flip=True, scales=_base_.scales)
tta = dict(plain=off, flip=dict(off, flip=True), scales=dict(on, flip=False), both=on)
self_training, generations = _base_.steps.adapt_self_training, ('pseudo_label_1', 'pseudo_label_2')
confidence = {'train_dataloader.dataset.datasets.1.confidence': True}
steps = dict(
    zero_shot_student=None, pseudo_label_2=None, transfer=None, refine=None,
    pseudo_label_1=dict(confidence=True),
    adapt_self_training_confidence=dict(self_training, cfg_options=confidence),
    pseudo_label_0=dict(
        _base_.steps.pseudo_label_1, enabled=True, checkpoint='{foundation_teacher}', limit=40, **off)) | {
        f'{name}_{option}': dict(_base_.steps[name], limit=40, **settings)
        for name in generations for option, settings in tta.items()}
summary = dict(adapt_self_training_confidence='teacher, self-trained with confidence maps')
