# Everything here does its own set-up. Another Python: make demo PYTHON=python3.11
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.mmcast-ready
UNFINISHED := $(VENV)/.mmcast-unfinished

.PHONY: help demo test setup clean

help:
	@echo 'make demo   train the student on toy street scenes, all stages (set-up 6 min once, then 9 to 15 min)'
	@echo 'make test   run the tests (about 15 min after set-up)'
	@echo 'make setup  only make $(VENV) with the pinned stack and mmcast'
	@echo 'make clean  remove $(VENV) and what builds left behind; results in work_dirs stay'

# Without a GPU two processes share every batch: on small networks that is faster than two threads of one.
PROCESSES = $(shell $(VENV)/bin/python -c 'import os, torch; print(1 if torch.cuda.is_available() else min(2, os.cpu_count()))')

demo: $(READY)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(VENV)/bin/python -m torch.distributed.run --standalone --nproc_per_node=$(PROCESSES) \
		tools/train.py configs/cast_toy.py --launcher pytorch

test: $(READY)
	$(VENV)/bin/python -m pytest tests

setup: $(READY)

# pip cannot repair a package whose installation was cut off, so an unfinished environment is made anew.
$(READY): setup.py pyproject.toml $(wildcard requirements/*.txt)
	@echo 'Setting up $(VENV): about 6 minutes and 7 GB of disk the first time, most of it for torch.'
	@if [ -e $(UNFINISHED) ]; then echo 'The last set-up was interrupted: starting over.'; rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(UNFINISHED)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check --editable '.[mm,deploy,tests]'
	@rm $(UNFINISHED) && touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache mmcast/.mim
	find mmcast tools tests configs -name __pycache__ -prune -exec rm -rf {} +
