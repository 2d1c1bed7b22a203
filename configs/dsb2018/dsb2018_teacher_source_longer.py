# The foundation teacher of DSB2018, continued: after 3,600 iterations its AP on synthetic images was still rising.
_base_ = './dsb2018_teacher_source.py'
load_from = 'work_dirs/toy_weights/dsb2018_teacher_source/iter_3600.pth'  # tools/make_toy_weights.py puts its own here
new_parameters = []
train_cfg = dict(max_iters=6500, val_interval=3250)
