# The whole method on real microscopy images: 33 labeled, 298 unlabeled, 114 for validation.
_base_ = './_base_/pipelines/cast.py'
work_dir = 'work_dirs/cast_dsb2018'
nuclei = '{configs}/dsb2018/weights/nuclei_'
variables = dict(
    data_root='data/dsb2018', teacher='dsb2018/dsb2018_teacher', student='dsb2018/dsb2018_student',
    foundation_teacher=nuclei + 'teacher.pth', pretrained_student=nuclei + 'student.pth')
# Test-time augmentation of the teacher: docs/pseudo_labels.md says what it changes.
scales = [0.75, 1.0, 1.25]
student = dict(kind='test', config='{student}_transfer.py', checkpoint='{pretrained_student}')
steps = dict(
    zero_shot_student=dict(student, after='zero_shot'),
    pseudo_label_1=dict(scales=scales),
    adapt_self_training=dict(load_from='{adapt_labeled.checkpoint}'),
    pseudo_label_2=dict(scales=scales, flip=True))
summary = dict(zero_shot_student='student, zero-shot')
report = dict(
    # Nobody trains on the labels of {data.train}: they tell how good the pseudo-labels are.
    pseudo_labels=dict(labeled='{data.labeled}', hidden='{data.train}'))
model_card = dict(data='DSB2018: nuclei of the 2018 Data Science Bowl, stage1_train (BBBC038v1).')
model_card['licences'] = dict.fromkeys(('nuclei_teacher.pth', 'nuclei_student.pth'), 'Apache-2.0, made by mmcast')
