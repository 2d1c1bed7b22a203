# The method with the paper's teacher and student. The four downloads that lie in weights/: docs/teacher.md;
# step `start` checks all of them.
_base_ = './cast.py'
variables = dict(
    grounding_dino='weights/grounding_dino_swin-l_pretrain_all-56d69e78.pth',
    sam2='weights/sam2.1_hiera_large.pt',  # or a folder or name of Hugging Face's
    language_model='weights/bert-base-uncased',
    dinov2='weights/dinov2_vits14_pretrain.pth',
    foundation_teacher='{start.teacher}',
    teacher_options={'model.detector.grounding_dino.language_model.name': '{start.language_model}'})
steps = dict(
    start=dict(
        kind='call',
        function='mmcast.models.teacher.foundation_weights.merge_teacher_weights',
        kwargs=dict(
            out_dir='{work_dir}/start', grounding_dino='{grounding_dino}', sam2='{sam2}',
            language_model='{language_model}', dinov2='{dinov2}')),
    zero_shot=dict(config='{zero_shot_teacher}.py'),
    transfer=dict(
        load_from=None, cfg_options={'model.detector.backbone.init_cfg.checkpoint': '{start.dinov2}'}))
