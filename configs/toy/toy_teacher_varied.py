# The foundation teacher's second part: scenes of any colours, light and weather, as foundation models have
# seen them. The target domain is not among them.
_base_ = './toy_teacher_source.py'
data_root = 'data/toy_cityscapes_varied/'
varied = dict(dataset=dict(data_root=data_root))
load_from = 'work_dirs/toy_weights/toy_teacher_source.pth'  # tools/make_toy_weights.py puts its own here
train_dataloader = varied
val_dataloader = varied
test_dataloader = varied
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=8e-4))
train_cfg = dict(max_iters=2400, val_interval=600)
