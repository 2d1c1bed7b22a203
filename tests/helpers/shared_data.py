"""Where the real nuclei images are, for tests marked ``shared_data``."""

import os
from pathlib import Path

_BESIDE = Path(__file__).resolve().parents[3] / 'shared' / 'data' / 'dsb2018'
#: The converted data set: ``MMCAST_DSB2018``, or the folder beside the checkout.
DSB2018 = Path(os.environ.get('MMCAST_DSB2018', _BESIDE))
