# What each option for better pseudo-labels changes: those of both generations of cast_toy.py with flip, with
# scales and with both, next to the plain ones on one page, and the student with and without confidence maps.
_base_ = './cast_toy.py'
work_dir = 'work_dirs/cast_toy_pseudo_label_options'
plain = dict(flip=False, scales=[1.0])
tta = dict(
    flip=dict(plain, flip=True), scales=dict(_base_.views, flip=False), both=_base_.views)
confidence = {'train_dataloader.dataset.datasets.1.confidence': True}
# The maps lie in the second file all the same for the student that does not read them.
steps = dict(
    refine=None,
    pseudo_label_1=plain,
    pseudo_label_2=dict(plain, confidence=True),
    pseudo_label_0=dict(
        _base_.steps.pseudo_label_1, **plain, enabled=True, checkpoint='{foundation_teacher}')) | {
        f'{name}_{option}': dict(_base_.steps[name], **settings)
        for name in ('pseudo_label_1', 'pseudo_label_2') for option, settings in tta.items()} | dict(
    transfer_confidence=dict(_base_.steps.transfer, cfg_options=confidence))
summary = dict(transfer_confidence='student, transferred with confidence maps')
report = dict(columns=[
    dict(title='student', step='transfer'), dict(title='with confidence', step='transfer_confidence')])
