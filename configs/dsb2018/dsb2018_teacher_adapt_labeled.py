# Step 1a: adapt the foundation teacher on the labeled images, l_semi = 0, l_pxl on. Also tests it zero-shot.
_base_ = ['../_base_/models/dsb2018_teacher.py', '../_base_/datasets/dsb2018.py',
          '../_base_/schedules/toy.py']
load_from = 'configs/dsb2018/weights/nuclei_teacher.pth'
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(max_iters=800, val_interval=800)
