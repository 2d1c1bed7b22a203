"""Curves of several starts of one run."""

from mmcast.training.curves import number_start, read_curves


def log(folder, name, *lines):
    """One start's log, as MMEngine names and writes it."""
    path = folder / name / 'vis_data/scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(lines) + '\n')
    number_start(folder / name)


def test_a_clock_set_back_does_not_bring_back_the_values_of_the_start_before(tmp_path):
    log(tmp_path, '20261129_120000', '{"loss": 3.0, "step": 1}', '{"loss": 2.0, "step": 2}')
    log(tmp_path, '20261129_110000', '{"loss": 1.5, "step": 2}', '{"loss": 1.0, "step": 3}')
    assert read_curves(tmp_path) == {'loss': [(1, 3.0), (2, 1.5), (3, 1.0)]}


def test_starts_without_a_number_come_first_by_name(tmp_path):
    log(tmp_path, '20261129_110000', '{"loss": 3.0, "step": 1}')
    log(tmp_path, '20261129_120000', '{"loss": 2.0, "step": 1}')
    for path in tmp_path.glob('*/start.txt'):
        path.write_text('')
    log(tmp_path, '20261129_100000', '{"loss": 1.0, "step": 2}')
    assert read_curves(tmp_path) == {'loss': [(1, 2.0), (2, 1.0)]}


def test_lines_that_are_damaged_are_left_out(tmp_path):
    log(tmp_path, '20261129_110000', '{"loss": 3.0, "step": 1}', '5', '\0\0', '{"loss": 2.0, "st')
    with next(tmp_path.glob('*/vis_data/scalars.json')).open('ab') as file:
        file.write(b'\xff\xfe')
    assert read_curves(tmp_path) == {'loss': [(1, 3.0)]}
