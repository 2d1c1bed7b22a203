# As cast_cityscapes.py, on one GPU: the components of the teacher learn one after the other.
_base_ = './_base_/pipelines/cast_single_gpu.py'
work_dir = 'work_dirs/cast_cityscapes_single_gpu'
variables = dict(data_root='data/cityscapes', teacher='cityscapes_single_gpu/cityscapes_single_gpu_teacher',
    zero_shot_teacher='cityscapes/cityscapes_teacher_zero_shot',
    student='cityscapes_single_gpu/cityscapes_single_gpu_student')
steps = dict(data=dict(function='mmcast.coco.converters.cityscapes.prepare_cityscapes'))
