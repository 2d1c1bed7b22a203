# The whole method on ADE20K with 10 % of the labels. Data: docs/data.md; weights: docs/teacher.md.
_base_ = './_base_/pipelines/cast_foundation.py'
work_dir = 'work_dirs/cast_ade20k'
variables = dict(data_root='data/ADEChallengeData2016', teacher='ade20k/ade20k_teacher',
    zero_shot_teacher='ade20k/ade20k_teacher_zero_shot', student='ade20k/ade20k_student')
steps = dict(data=dict(function='mmcast.coco.converters.ade20k.prepare_ade20k'))
