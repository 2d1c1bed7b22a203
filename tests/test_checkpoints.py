"""Weights files: damage is found, values are finite, and no way to load one runs code in it."""

import argparse
import functools
import http.server
import re
import struct
import threading
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from exploit import Exploit
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModule
from mmengine.optim import OneCycleLR
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader

from mmcast.checkpoints import load_plain
from mmcast.errors import CASTError
from mmcast.models.weights.loading import load_weights
from mmcast.models.weights.reading import read_state_dict

ROOT = Path(__file__).parents[1]


def state(**values):
    return {f'layers.{number}.weight': torch.randn(20, 30) for number in range(4)} | values


SAVE = dict(
    zip=lambda content, path: torch.save(dict(state_dict=content), path),
    legacy=lambda content, path: torch.save(
        dict(state_dict=content), path, _use_new_zipfile_serialization=False
    ),
    safetensors=safetensors.torch.save_file,
)


@pytest.mark.parametrize('kind', SAVE)
def test_the_content_says_what_a_file_is_not_its_name(kind, tmp_path):
    saved = state()
    SAVE[kind](saved, tmp_path / 'weights.bin')
    read = read_state_dict(tmp_path / 'weights.bin')
    assert list(read) == list(saved) and all(read[key].equal(saved[key]) for key in saved)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16, torch.complex64])
def test_weights_that_are_not_finite_are_named(dtype, value, tmp_path):
    bad = torch.ones(50).index_fill(0, torch.tensor([49]), value).to(dtype)
    torch.save(dict(state_dict=state(**{'head.bias': bad})), tmp_path / 'iter_1.pth')
    with pytest.raises(
        CASTError, match=r'iter_1\.pth: 1 of 5 tensors are not finite.*such as head\.bias:'
    ):
        load_weights(torch.nn.Linear(1, 1), str(tmp_path / 'iter_1.pth'))


@pytest.mark.parametrize('kind', SAVE)
def test_every_format_is_looked_through_and_mmengine_gets_none_either(kind, tmp_path):
    path = tmp_path / 'weights.pth'
    names = [f'bad.{number}' for number in range(5)]
    SAVE[kind](state(**{name: torch.tensor([1.0, float('nan')]) for name in names}), path)
    message = r'5 of 9 tensors are not finite \(NaN or infinity\), such as bad\.0, bad\.1, bad\.2:'
    for load in (load_plain, functools.partial(CheckpointLoader.load_checkpoint, logger='silent')):
        with pytest.raises(CASTError, match=message):
            load(str(path))


def test_every_flipped_bit_of_a_checkpoint_is_found(tmp_path):
    """torch.load itself takes most of them as they come."""
    path = tmp_path / 'iter_1.pth'
    torch.save(dict(state_dict=state(), meta=dict(iter=1)), path)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    for record in records:
        lengths = struct.unpack('<HH', data[record.header_offset + 26 : record.header_offset + 30])
        damaged = bytearray(data)
        damaged[record.header_offset + 30 + sum(lengths)] ^= 1  # the first byte of the content
        path.write_bytes(damaged)
        with pytest.raises(CASTError, match=r'iter_1\.pth is cut short or damaged .Bad CRC-32'):
            read_state_dict(path)
    for length in (4, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(CASTError, match=r'iter_1\.pth is cut short or damaged'):
            read_state_dict(path)


def test_checkpoints_without_checksums_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state(), tmp_path / 'weights.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    assert len(read_state_dict(tmp_path / 'weights.pth')) == 4


@pytest.mark.parametrize(
    'entry, message', [('cat.jpg', 'zip archive, not a weights file.*cat.jpg'), ('a/data.pkl', '')]
)
def test_an_archive_of_something_else_is_named(entry, message, tmp_path):
    with zipfile.ZipFile(tmp_path / 'weights.pth', 'w') as archive:
        archive.writestr(entry, b'x' * 100)
    with pytest.raises(CASTError, match=rf'weights\.pth .*{message}'):
        read_state_dict(tmp_path / 'weights.pth')


def test_what_training_stores_is_plain(tmp_path):
    schedule = OneCycleLR(
        torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1), eta_max=1, total_steps=9
    )
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    content = dict(schedule=schedule.state_dict(), history=history, args=argparse.Namespace(lr=0.1))
    torch.save(dict(state_dict=state(), **content), tmp_path / 'iter_1.pth')
    read = load_plain(tmp_path / 'iter_1.pth')
    assert read['history'].mean() == 1.5 and read['args'].lr == 0.1
    assert read['schedule']['anneal_func'] is schedule.anneal_func


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A checkpoint whose pickle makes a file; as a file, and on a server, whose cache is empty."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    torch.save(dict(state_dict=state(), extra=Exploit(tmp_path / 'ran')), tmp_path / 'evil.pth')
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    monkeypatch.setattr(handler.func, 'log_message', lambda *args: None)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield tmp_path, f'http://127.0.0.1:{server.server_port}/evil.pth'
        server.shutdown()


def by_init_cfg(path):
    BaseModule(init_cfg=dict(type='Pretrained', checkpoint=path)).init_weights()


def by_prefix(path):
    init_cfg = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    BaseModule(init_cfg=init_cfg).init_weights()


def by_resume(path):
    runner = Runner(
        torch.nn.Linear(1, 1), '.', experiment_name='resume', log_level='ERROR', resume=True
    )
    runner.resume(path)


LOADS = dict(
    load_plain=load_plain,
    load_weights=lambda path: load_weights(torch.nn.Linear(1, 1), path),
    mmengine=lambda path: CheckpointLoader.load_checkpoint(path, 'cpu', 'silent'),
    init_cfg=by_init_cfg,
    init_cfg_with_prefix=by_prefix,
    resume=by_resume,
)


@pytest.mark.parametrize(
    'where, way',
    [*(('file', way) for way in LOADS), *(('server', way) for way in LOADS if way != 'load_plain')],
)
def test_no_way_to_load_weights_runs_code(where, way, evil, monkeypatch):
    folder, url = evil
    monkeypatch.chdir(folder)
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    with pytest.raises(CASTError, match=r'evil\.pth holds pickled code .io\.open') as error:
        LOADS[way]('evil.pth' if where == 'file' else url)
    assert not (folder / 'ran').exists() and '\n' not in str(error.value)


def test_only_listed_methods_come_out_of_a_pickle(tmp_path):
    class Method:
        def __reduce__(self):
            return getattr, (HistoryBuffer, 'register_statistics')

    torch.save(dict(state_dict=state(), extra=Method()), tmp_path / 'evil.pth')
    with pytest.raises(CASTError, match=r'holds pickled code \(getattr\(.*register_statistics\)'):
        load_plain(tmp_path / 'evil.pth')


def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    url = 'http://127.0.0.1:9/weights.pth'  # the port that discards
    with pytest.raises(CASTError, match=re.escape(url) + ' cannot be downloaded to'):
        load_weights(torch.nn.Linear(1, 1), url)


def test_a_file_that_is_missing_is_one_line_for_mmengine_too(tmp_path):
    with pytest.raises(CASTError, match=r'weights file .*none\.pth not found'):
        by_init_cfg(str(tmp_path / 'none.pth'))


def test_the_line_in_the_docs_converts_a_file_that_is_trusted(evil, monkeypatch):
    folder, _ = evil
    monkeypatch.chdir(folder)
    (line,) = re.findall(r'python -c "(.+theirs\.pth.+)"', (ROOT / 'docs/deploy.md').read_text())
    Path('evil.pth').rename('theirs.pth')
    exec(line)
    assert len(read_state_dict('tensors.pth')) == 4
