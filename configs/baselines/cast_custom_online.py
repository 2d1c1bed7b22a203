# Your own images without a foundation teacher: the COCO-trained Mask2Former R-50, fine-tuned on the labels alone,
# and with its own average as the teacher of the unlabeled images. Settings as in cast_custom.py; the weights:
# docs/teacher.md.
_base_ = '../_base_/pipelines/cast_own_images.py'
work_dir = 'work_dirs/cast_custom_online'
release = 'mask2former_r50_8xb2-lsj-50e_coco_20220506_191028-41b088b6.pth'
variables = dict(
    data_root='data/my_data',
    labeled='annotations.json',
    unlabeled='unlabeled',
    crop_size=512,
    student_weights='weights/' + release)
step_options = {'model.detector.panoptic_head.num_queries': '{start.num_queries}'}
start = dict(
    out_dir='{work_dir}/03_start', weights='{student_weights}', classes='{data.classes}',
    num_queries='{plan.num_queries}', seed='{seed}')
from_start = dict(kind='train', load_from='{start.student}')
supervised, online = (f'baselines/custom_mask2former_r50_coco_{name}.py' for name in ('supervised', 'online'))
steps = dict(
    plan=dict(kwargs=dict(configs=[supervised])),
    start=dict(
        function='mmcast.models.weights.coco_student.fit_coco_student', kwargs=dict(start, _delete_=True)),
    adapt_labeled=None, pseudo_label_1=None, adapt_self_training=None, pseudo_label_2=None,
    transfer=None, refine=None,
    supervised=dict(from_start, config=supervised),
    online=dict(from_start, config=online))
summary = dict(
    supervised='student from COCO, supervised (best)',
    online='student from COCO, online teacher')
report = dict(columns=[
    dict(title='supervised', step='supervised'), dict(title='online teacher', step='online')])
model_card = dict(licences={release: "Apache-2.0, mmdetection's model zoo; trained on COCO 2017"})
