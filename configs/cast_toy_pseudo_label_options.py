# What each option for better pseudo-labels changes: those of both generations of cast_toy.py with flip, with scales and
# with both, beside the plain ones on one page (pseudo_labels.html), and the student with and without confidence maps.
_base_ = './cast_toy.py'
work_dir = 'work_dirs/cast_toy_pseudo_label_options'

scales = [0.75, 1.0, 1.25]
views = dict(flip=dict(flip=True), scales=dict(scales=scales), both=dict(flip=True, scales=scales))
first, second = [step for step in _base_.steps if step['kind'] == 'pseudo_label']
transfer = _base_.steps[6]

# The maps lie in the second file all the same for the student that does not read them.
steps = _base_.steps[:5] + [
    dict(second, confidence=True),
    transfer,
    dict(first, name='pseudo_label_0', checkpoint='{foundation_teacher}'),
] + [
    dict(step, name=f'{step["name"]}_{name}', **options) for step in (first, second) for name, options in views.items()
] + [
    dict(
        transfer,
        name='transfer_confidence',
        cfg_options=dict(transfer['cfg_options'], **{'train_dataloader.dataset.datasets.1.confidence': True})),
]

summary = _base_.summary[:4] + [
    dict(row='student, transferred with confidence maps', step='transfer_confidence'),
]
report = dict(columns=[
    dict(title='student', config='toy/toy_student_transfer.py', checkpoint='{transfer.checkpoint}'),
    dict(title='with confidence', config='toy/toy_student_transfer.py', checkpoint='{transfer_confidence.checkpoint}'),
])
