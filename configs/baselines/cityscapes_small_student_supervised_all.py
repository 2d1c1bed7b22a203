# The supervised student on all labels of the training set: how much there is to gain.
_base_ = './cityscapes_small_student_supervised.py'
train_dataloader = dict(dataset=dict(ann_file='work_dirs/cast_cityscapes_small/01_data/train.json'))
