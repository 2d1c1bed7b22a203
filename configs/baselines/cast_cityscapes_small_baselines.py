# What configs/cast_cityscapes_small.py is compared with: the same student from the same start on the labels alone, on
# all labels, and taught by its own average. The best checkpoint on one half of the validation set is read on the other.
_base_ = '../cast_cityscapes_small.py'
work_dir = 'work_dirs/cast_cityscapes_small_baselines'
config = 'baselines/cityscapes_small_student_'
train = dict(kind='train', load_from='{pretrained_student}')
names = ('supervised', 'supervised_all', 'online')
dropped = [name for name in _base_.steps if name not in ('data', 'start')]
steps = dict.fromkeys(dropped) | {name: dict(train, config=f'{config}{name}.py') for name in names} | {
    f'{name}_test': dict(
        kind='test', config=f'{config}{name}.py', checkpoint=f'{{{name}.best_checkpoint}}')
    for name in names}
steps['supervised_all']['labeled'] = '{data.train}'
summary = dict(
    _delete_=True,
    supervised_test='student, supervised (best)',
    supervised_all_test='student, supervised, all labels (best)',
    online_test='student, online teacher alone (best)')
report = dict(pseudo_labels=None, columns=[
    dict(title='supervised', step='supervised'), dict(title='all labels', step='supervised_all'),
    dict(title='online teacher', step='online')])
