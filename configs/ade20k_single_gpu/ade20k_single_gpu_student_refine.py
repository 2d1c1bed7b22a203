# Step 3 on one GPU: half the batch, half the learning rate, twice the iterations.
_base_ = '../ade20k/ade20k_student_refine.py'
train_dataloader = dict(batch_size=4, num_workers=4)
optim_wrapper = dict(optimizer=dict(lr=5e-6))
train_cfg = dict(max_iters=32000, val_interval=32000)
