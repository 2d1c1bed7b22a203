# The whole method on Toy Cityscapes with 10 % of the labels: `make demo`, or `mmcast train cast_toy.py`.
_base_ = './_base_/pipelines/cast.py'
work_dir = 'work_dirs/cast_toy'
variables = dict(
    data_root='data/toy_cityscapes', teacher='toy/toy_teacher', student='toy/toy_student',
    foundation_teacher='{configs}/toy/weights/toy_teacher.pth',
    pretrained_student='{configs}/toy/weights/toy_student.pth')
toy = dict(_delete_=True, root='{data_root}', seed='{seed}', percent='{percent}', num_train=100)
views = dict(flip=True, scales=[0.75, 1.0, 1.25])  # of a teacher that labels: docs/pseudo_labels.md
steps = dict(
    data=dict(function='mmcast.toy.cityscapes.prepare_toy_cityscapes', kwargs=toy),
    pseudo_label_1=views,
    pseudo_label_2=views)
# Nobody trains on the labels of {data.train}: they tell how good the pseudo-labels are.
report = dict(pseudo_labels=dict(labeled='{data.labeled}', hidden='{data.train}'))
# What the card of the exported student says in addition to what it finds out by itself.
licence = 'Apache-2.0, made by mmcast'
model_card = dict(
    data='Toy Cityscapes: synthetic street scenes, rainy dusk.',
    licences={'toy_teacher.pth': licence, 'toy_student.pth': licence})
