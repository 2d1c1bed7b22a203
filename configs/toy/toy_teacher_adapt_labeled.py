# Step 1a: adapt the foundation teacher on the labeled images, l_semi = 0, l_pxl on. Also tests it zero-shot.
_base_ = ['../_base_/models/toy_teacher.py', '../_base_/datasets/toy_cityscapes.py',
          '../_base_/schedules/toy.py']
load_from = 'configs/toy/weights/toy_teacher.pth'
optim_wrapper = dict(optimizer=dict(lr=1e-4))
train_cfg = dict(max_iters=150, val_interval=150)
