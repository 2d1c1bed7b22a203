"""What is in a folder, to compare it with another one or with itself later."""

from pathlib import Path


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of every file at any depth, by its path below the folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }
