#!/usr/bin/env bash
# MMEngine 0.10.7: `logging.disable(level)` outlives its lifting. A logger remembers whether it is enabled for a level;
# Python empties that memory for the loggers that its manager knows when `disable` is called. MMEngine's loggers are
# not the manager's: one that was asked while a level was disabled answers "disabled" for ever, warnings included, until
# `setLevel` of any of them is called. And a logger that is made while standard output is redirected (it is made by the
# first line that anything logs with `logger='current'`) writes to where the redirection went, for ever.
# The script logs a warning before, within and after such blocks, beside a logger of Python's, and exits with 1 when what
# is written changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mmengine==0.10.7 numpy opencv-python-headless setuptools==80.9.0
cat > "$folder/run.py" <<'PYTHON'
import contextlib
import io
import logging
import sys

from mmengine.logging import MMLogger, print_log

kind, block = sys.argv[1:]
plain = logging.getLogger('plain')
handler = logging.StreamHandler(sys.stdout)
plain.addHandler(handler)


def warn(text: str) -> None:
    if kind == 'mmengine':
        print_log(text, logger='current', level=logging.WARNING)
    else:
        plain.warning(text)


if block == 'disable':
    logging.disable(logging.WARNING)
    warn('within')
    logging.disable(logging.NOTSET)
    warn('after')
    if kind == 'mmengine':
        MMLogger.get_current_instance().setLevel(logging.INFO)
    warn('after setLevel')
else:
    with contextlib.redirect_stdout(io.StringIO()):
        warn('within')
    warn('after')
PYTHON
written() { "$folder/venv/bin/python" "$folder/run.py" "$@" 2>&1 | grep -o 'within\|after setLevel\|after' | tr '\n' ',' || true; }
status=0
check() { # kind, block, expected
    said=$(written "$1" "$2")
    echo "$1 logger, $2: written are '$said'"
    [ "$said" = "$3" ] || status=1
}
check python disable 'after,after setLevel,'
check mmengine disable 'after setLevel,'
check python redirect 'within,after,'
check mmengine redirect ''
exit $status
