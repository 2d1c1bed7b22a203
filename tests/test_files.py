"""Files are written whole or not at all, under the umask; what cannot be written is named."""

import contextlib
import errno
import os
import pickle
import stat

import pytest
from full_disk import files_of_at_most

from mmcast.errors import CASTError
from mmcast.files import WriteError, check_is_binary, naming, sha256_of_file, write_atomically


@contextlib.contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


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


def test_a_full_disk_names_the_file_and_keeps_the_old_one(tmp_path):
    path = tmp_path / 'pipeline.json'
    write_atomically(path, 'old')
    with files_of_at_most(1000), pytest.raises(CASTError) as caught:
        write_atomically(path, 'x' * 2000)
    assert str(caught.value).startswith(f'cannot write {path} (File too large): ')
    assert caught.value.errno == errno.EFBIG  # who handles OSError can still tell
    assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]


def test_what_the_system_says_becomes_one_line_that_survives_another_process(tmp_path):
    path = tmp_path / 'labels.json'
    with pytest.raises(WriteError) as caught, naming(path):
        raise OSError(errno.ENOSPC, 'No space left on device')
    assert 'labels.json (No space left on device, ' in str(caught.value)
    assert ' MB free): make room there' in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(FileNotFoundError, match=r'other\.json'), naming(path):
        (tmp_path / 'other.json').read_text()  # is not the file that is written


@pytest.mark.parametrize('mask, expected', [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
@pytest.mark.parametrize('content', ['Füße', b'\x00\xff'])
def test_new_files_and_folders_follow_the_umask(tmp_path, content, mask, expected):
    path = tmp_path / 'a' / 'b' / 'file'
    with umask(mask):
        write_atomically(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert (mode(path), mode(path.parent)) == (expected, 0o777 & ~mask)


def test_a_replaced_file_keeps_its_permissions(tmp_path):
    path = tmp_path / 'file'
    path.touch()
    path.chmod(0o640)
    with umask(0o022):
        write_atomically(path, 'new')
    assert (path.read_text(), mode(path)) == ('new', 0o640)


def test_a_name_may_be_as_long_as_the_system_takes(tmp_path):
    write_atomically(tmp_path / ('ü' * 127), 'new')
    assert (tmp_path / ('ü' * 127)).read_text() == 'new'
    with pytest.raises(CASTError, match='File name too long.*give a shorter name'):
        write_atomically(tmp_path / ('x' * 300), 'new')


@pytest.mark.parametrize(
    'content, found',
    [
        (b'', r'empty \(0 bytes\)'),
        (b'\n<!DOCTYPE html>\n<html>', r'a web page \(HTML\)'),
        (
            b'version https://git-lfs.github.com/spec/v1\noid sha256:00',
            'a Git LFS pointer.*lfs pull',
        ),
        (b'404: Not Found\n', 'a text file, which begins "404: Not Found"'),
        ('ü'.encode() * 300, 'a text file'),
        (b'\x1f\x8b\x08', 'a gzip archive: unpack'),
        (None, 'is a folder'),
    ],
    ids=['empty', 'page', 'lfs', 'text', 'cut character', 'gzip', 'folder'],
)
def test_what_stands_in_place_of_a_large_file_is_named(tmp_path, content, found):
    path = tmp_path / 'weights.pth'
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(CASTError, match=rf'weights\.pth .*{found}') as caught:
        check_is_binary(path, 'a weights file')
    assert '\n' not in str(caught.value)


def test_sha256_is_that_of_the_content(tmp_path):
    (tmp_path / 'file').write_bytes(b'abc')  # the example of FIPS 180-2
    assert sha256_of_file(tmp_path / 'file') == (
        'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
    )
