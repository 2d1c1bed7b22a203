# Step 3: refine the transferred student on the labels alone, l_semi = l_pxl = 0. A tenth of the learning rate
# and of the iterations; the paper does not say.
_base_ = ['../_base_/models/cast_student.py', '../_base_/datasets/cityscapes.py',
          '../_base_/schedules/student.py']
load_from = 'work_dirs/cast_cityscapes/transfer.pth'  # the pipeline puts its own here
optim_wrapper = dict(optimizer=dict(lr=5e-6))
train_cfg = dict(max_iters=9000, val_interval=9000)
val_evaluator = [_base_.val_evaluator, _base_.official_metric]
test_evaluator = val_evaluator
