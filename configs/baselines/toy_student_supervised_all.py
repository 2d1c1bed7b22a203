# The supervised student on all labels of the training set: how much there is to gain.
_base_ = './toy_student_supervised.py'
train_dataloader = dict(dataset=dict(ann_file='annotations/instances_train.json'))
