# What flip and scales change in the pseudo-labels of both generations of cast_dsb2018.py, on 100 of the unlabeled images,
# beside those of the foundation teacher: all on one page (pseudo_labels.html). There is no student.
_base_ = './cast_dsb2018.py'
work_dir = 'work_dirs/cast_dsb2018_pseudo_label_options'

views = dict(
    plain=dict(flip=False, scales=[1.0]),
    flip=dict(flip=True, scales=[1.0]),
    scales=dict(flip=False, scales=_base_.scales),
    both=dict(flip=True, scales=_base_.scales))
first, second = [step for step in _base_.steps if step['kind'] == 'pseudo_label']

steps = _base_.steps[:6] + [
    dict(first, name='pseudo_label_0', checkpoint='{foundation_teacher}', limit=100, **views['plain']),
] + [
    dict(step, name=f'{step["name"]}_{name}', limit=100, **options) for step in (first, second)
    for name, options in views.items()
]

summary = _base_.summary[:4]
report = dict(columns=_base_.report['columns'][:1])
