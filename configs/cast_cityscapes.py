# The whole method on Cityscapes with 10 % of the labels. Data: docs/data.md; weights: docs/teacher.md.
_base_ = './_base_/pipelines/cast_foundation.py'
work_dir = 'work_dirs/cast_cityscapes'
variables = dict(data_root='data/cityscapes', teacher='cityscapes/cityscapes_teacher',
    zero_shot_teacher='cityscapes/cityscapes_teacher_zero_shot', student='cityscapes/cityscapes_student')
steps = dict(data=dict(function='mmcast.coco.converters.cityscapes.prepare_cityscapes'))
