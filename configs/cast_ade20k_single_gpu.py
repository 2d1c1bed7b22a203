# As cast_ade20k.py, on one GPU: the components of the teacher learn one after the other.
_base_ = './_base_/pipelines/cast_single_gpu.py'
work_dir = 'work_dirs/cast_ade20k_single_gpu'
variables = dict(data_root='data/ADEChallengeData2016', teacher='ade20k_single_gpu/ade20k_single_gpu_teacher',
    zero_shot_teacher='ade20k/ade20k_teacher_zero_shot', student='ade20k_single_gpu/ade20k_single_gpu_student')
steps = dict(data=dict(function='mmcast.coco.converters.ade20k.prepare_ade20k'))
