# Step 2 on one GPU: half the batch, half the learning rate, twice the iterations.
_base_ = '../ade20k/ade20k_student_transfer.py'
train_dataloader = dict(batch_size=4, num_workers=4, sampler=dict(batch_size=4))
optim_wrapper = dict(optimizer=dict(lr=5e-5))
train_cfg = dict(max_iters=320000)
