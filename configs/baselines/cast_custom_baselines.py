# What configs/cast_custom.py is compared with, with the same settings: its student on the labels alone.
_base_ = '../cast_custom.py'
work_dir = 'work_dirs/cast_custom_baselines'
steps = dict(
    adapt_labeled=None, pseudo_label_1=None, adapt_self_training=None, pseudo_label_2=None,
    transfer=None, refine=None,
    supervised=dict(
        kind='train', config='baselines/custom_student_supervised.py',
        load_from='{pretrained_student}'))
summary = dict(supervised='student, supervised (best)')
report = dict(columns=[dict(title='supervised', step='supervised')])
