"""A training checkpoint of the toy's student, with its shipped weights, and what is exported from
it, made once.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmcast.deploy import onnx_export
from mmcast.deploy.export import Source, export_student, student_config
from mmcast.models.weights.reading import read_state_dict
from mmcast.registry import MODELS
from mmcast.toy.cityscapes import prepare_toy_cityscapes

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / 'configs/toy/weights/toy_student.pth'


@pytest.fixture(scope='session')
def toy_data(tmp_path_factory) -> dict:
    """Six validation images of Toy Cityscapes; paths as ``prepare`` gives them, and ``root``."""
    root = tmp_path_factory.mktemp('toy')
    return dict(prepare_toy_cityscapes(root, num_train=4, num_val=6, percent=50), root=str(root))


@pytest.fixture(scope='session')
def trained(toy_data, tmp_path_factory) -> Source:
    """The config and checkpoint of a transfer step with an online teacher: network, teacher,
    projector, optimiser.
    """
    folder = tmp_path_factory.mktemp('step')
    cfg = Config.fromfile(ROOT / 'configs/toy/toy_student_transfer.py')
    cfg.model.teacher = cfg.model.detector.copy()
    for loader in (cfg.test_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = toy_data['root']
        loader.num_workers, loader.persistent_workers = 0, False
    cfg.test_evaluator.ann_file = cfg.val_evaluator.ann_file = toy_data['val']
    cfg.dump(folder / 'toy_student_transfer.py')
    with DefaultScope.overwrite_default_scope('mmcast'):
        model = MODELS.build(cfg.model)
    student = {key: value.float() for key, value in read_state_dict(WEIGHTS).items()}
    model.detector.load_state_dict(student)
    optimizer = torch.optim.AdamW(model.detector.parameters())
    torch.save(
        dict(state_dict=model.state_dict(), optimizer=optimizer.state_dict(), meta=dict(iter=1)),
        folder / 'iter_1.pth',
    )
    return Source(folder / 'toy_student_transfer.py', folder / 'iter_1.pth')


@pytest.fixture(scope='session')
def exported(trained, tmp_path_factory) -> Path:
    """The folder of the exported student."""
    return export_student(trained, tmp_path_factory.mktemp('exported') / 'student')


@pytest.fixture(scope='session')
def network(trained):
    """The student in torch."""
    return onnx_export.load_network(student_config(Config.fromfile(trained.config)), trained)


@pytest.fixture(scope='session')
def graph(network):
    """The student's ONNX graph, before it is given names and metadata."""
    return onnx_export.to_onnx(network)


@pytest.fixture
def graph_at_hand(graph, monkeypatch):
    """Lets ``export_onnx`` take an existing graph; making one takes most of an export's time."""

    def copy_of_graph(student, attention):
        copy = type(graph)()
        copy.CopyFrom(graph)
        return copy

    monkeypatch.setattr(onnx_export, 'to_onnx', copy_of_graph)


@pytest.fixture(scope='session')
def onnx_file(graph, trained, tmp_path_factory) -> Path:
    """The exported file, as ``tools/export_onnx.py`` writes it."""
    path = tmp_path_factory.mktemp('onnx') / 'student.onnx'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            onnx_export,
            'to_onnx',
            lambda student, attention: type(graph).FromString(graph.SerializeToString()),
        )
        onnx_export.export_onnx(replace(trained, step='transfer'), path)
    return path


@pytest.fixture
def photos(toy_data) -> list[np.ndarray]:
    """The validation images, RGB."""
    import cv2

    paths = sorted(Path(toy_data['val_images']).rglob('*.png'))
    return [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]
