"""Files are written whole or not at all."""

import os

import pytest

from mmcast.files import sha256_of_file, write_atomically


@pytest.mark.parametrize('broken', ['fsync', 'replace'])
def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch, broken):
    path = tmp_path / 'pipeline.json'
    write_atomically(path, 'old')

    def full_disk(*args):
        raise OSError('No space left on device')

    monkeypatch.setattr(os, broken, full_disk)
    with pytest.raises(OSError, match='No space'):
        write_atomically(path, 'new')
    assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('content', ['Füße', b'\x00\xff'])
def test_text_and_bytes_arrive_in_new_folders_readable_by_others(tmp_path, content):
    path = tmp_path / 'a' / 'b' / 'file'
    write_atomically(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert path.stat().st_mode & 0o777 == 0o644


def test_sha256_is_that_of_the_content(tmp_path):
    (tmp_path / 'file').write_bytes(b'abc')  # the example of FIPS 180-2
    assert sha256_of_file(tmp_path / 'file') == (
        'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
    )
