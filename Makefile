# Everything here does its own set-up. Another Python: make demo PYTHON=python3.11
PYTHON ?= python3
VENV := .venv
DOCS := .venv-docs
READY := $(VENV)/.mmcast-ready
UPSTREAM := .venv-upstream
UPSTREAM_READY := $(UPSTREAM)/.mmcast-ready

LINTED := mmcast tests tools benchmarks docs setup.py

.PHONY: help demo test test-upstream check docs setup clean

help:
	@echo 'make demo   train the student on toy street scenes, all stages (set-up 2 to 6 min once, then 5 to 15 min)'
	@echo 'make test   make check, then the tests (about 12 min on two cores after set-up)'
	@echo 'make check  lint, types, floors and Python version of the code (about 1 min)'
	@echo 'make docs   the site of docs/ and the API in build/site, by an environment of its own'
	@echo 'make test-upstream   training, resuming, testing and pseudo-labels on mmengine, mmcv-lite, mmdet and mmpretrain'
	@echo 'make setup  only make $(VENV) with the pinned stack and mmcast'
	@echo 'make clean  remove the environments and what builds left behind; results in work_dirs stay'

demo: $(READY)
	$(ONE_THREAD) $(VENV)/bin/python tools/train.py configs/cast_toy.py --processes auto

# Networks of the tests are tiny, so a process gets one thread. The tests of a file stay in one process: they
# share what takes long to make; files start in the order of tests/conftest.py.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
PYTEST := pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: check
	$(ONE_THREAD) $(VENV)/bin/python -m $(PYTEST) tests

check: $(READY)
	$(VENV)/bin/ruff check $(LINTED) configs
	$(VENV)/bin/ruff format --check $(LINTED)
	$(VENV)/bin/vermin --target=3.11- --violations --quiet --no-tips --exclude str.decode $(LINTED) configs
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

docs: $(DOCS)/bin/mkdocs
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build

$(DOCS)/bin/mkdocs: requirements/docs.txt
	$(PYTHON) -m venv --clear $(DOCS)
	$(DOCS)/bin/python -m pip install --disable-pip-version-check --requirement requirements/docs.txt
	@touch $@

# What depends on whose mmengine, mmcv, mmdet and mmpretrain is installed. Upstream's mmengine loads again what a
# resumed run has trained on, one batch after the other: the tests of that, and of a resumed run that ends as an
# undisturbed one bit by bit, are left out.
test-upstream: $(UPSTREAM_READY)
	$(ONE_THREAD) $(UPSTREAM)/bin/python -m $(PYTEST) tests/test_same_ap.py tests/test_environment.py tests/test_compat.py \
		tests/test_shipped_names.py tests/cli tests/data tests/models tests/pipeline tests/pseudo_labels tests/training \
		tests/test_end_to_end.py::test_toy_pipeline_ends_in_the_table_and_the_report \
		--deselect tests/data/test_samplers.py::test_a_resumed_run_loads_nothing_that_it_has_trained_on \
		--deselect tests/training/test_randomness.py::test_a_resumed_run_is_the_undisturbed_one_bit_by_bit

setup: $(READY)

$(READY): PACKAGES := --editable '.[mm,deploy,encoders,tests,dev]'
$(UPSTREAM_READY): PACKAGES := --requirement requirements/upstream.txt --editable '.[deploy,encoders,tests]'

# pip cannot repair a package whose installation was cut off, so an unfinished environment is made anew.
$(READY) $(UPSTREAM_READY): %/.mmcast-ready: setup.py pyproject.toml $(wildcard requirements/*.txt)
	@echo 'Setting up $*: about 6 minutes and 7 GB of disk the first time, most of it for torch.'
	@if [ -e $*/.mmcast-unfinished ]; then echo 'The last set-up was interrupted: starting over.'; rm -rf $*; fi
	@mkdir -p $* && touch $*/.mmcast-unfinished
	$(PYTHON) -m venv $*
	$*/bin/python -m pip install --disable-pip-version-check $(PACKAGES)
	@rm $*/.mmcast-unfinished && touch $@

clean:
	rm -rf $(VENV) $(UPSTREAM) $(DOCS) build dist *.egg-info .import_linter_cache .mypy_cache .pytest_cache .ruff_cache mmcast/.mim
	find mmcast tools tests configs -name __pycache__ -prune -exec rm -rf {} +
