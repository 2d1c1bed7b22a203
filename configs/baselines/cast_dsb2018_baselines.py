# What configs/cast_dsb2018.py is compared with: the same student trained on the labels only.
_base_ = '../_base_/pipelines/baselines.py'
work_dir = 'work_dirs/cast_dsb2018_baselines'
variables = dict(
    data_root='data/dsb2018', student='baselines/dsb2018_student',
    pretrained_student='{configs}/dsb2018/weights/nuclei_student.pth')
