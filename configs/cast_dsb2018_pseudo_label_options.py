# What each option for better pseudo-labels changes with cast_dsb2018.py: labels of both generations with flip, with scales
# and with both, on 40 of the unlabeled images, beside those of the foundation teacher, on one page (pseudo_labels.html);
# and the teacher self-trained (1b) with and without confidence maps. There is no student.
_base_ = './cast_dsb2018.py'
work_dir = 'work_dirs/cast_dsb2018_pseudo_label_options'

views = dict(
    plain=dict(flip=False, scales=[1.0]),
    flip=dict(flip=True, scales=[1.0]),
    scales=dict(flip=False, scales=_base_.scales),
    both=dict(flip=True, scales=_base_.scales))
first, second = [step for step in _base_.steps if step['kind'] == 'pseudo_label']
self_training = _base_.steps[5]

# data, zero-shot, 1a, labels, 1b; the maps lie in the file all the same where nobody reads them.
steps = _base_.steps[:2] + [_base_.steps[3], dict(first, confidence=True), self_training] + [
    dict(
        self_training,
        name='adapt_self_training_confidence',
        cfg_options=dict(self_training['cfg_options'], **{'train_dataloader.dataset.datasets.1.confidence': True})),
    dict(first, name='pseudo_label_0', checkpoint='{foundation_teacher}', limit=40, **views['plain']),
] + [
    dict(step, name=f'{step["name"]}_{name}', limit=40, **options) for step in (first, second)
    for name, options in views.items()
]

summary = _base_.summary[:1] + _base_.summary[2:4] + [
    dict(row='teacher, self-trained with confidence maps', step='adapt_self_training_confidence'),
]
report = dict(columns=_base_.report['columns'][:1])
