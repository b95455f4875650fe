# make segment [SCAN=path] [OUT=folder]   segment a scan: left atrium, measurements, picture
# make test                               lint, types and spelling, in parallel with the tests
# make pictures                           draw the tutorials' pictures again

SCAN ?= Resources/SampleData/LGEHeartPhantom.nrrd
OUT ?= results
PYTHON ?= python3
BIN := .venv/bin
RESULT = import os, sys; from dcamt.io.formats import scan_name; \
	print(os.path.join(os.path.expanduser(sys.argv[2]), scan_name(sys.argv[1])))
# The shell reads SCAN and OUT from its environment. If make wrote $(SCAN) into the command instead, a quotation mark in
# the path would end a word of the command.
export SCAN OUT

.PHONY: segment test tests lint pictures

segment: .venv/ready
	$(BIN)/dcamt segment "$$SCAN" -o "$$OUT" --measurements "$$OUT/measurements.csv" --skip-existing
# The results of a folder of scans have the scans' names; no picture is drawn of them.
	@result="$$($(BIN)/python -c '$(RESULT)' "$$SCAN" "$$OUT")" && \
	{ test -e "$$result.png" || test ! -e "$$result.seg.nrrd" || \
	$(BIN)/dcamt picture "$$SCAN" "$$result.seg.nrrd" -o "$$result.png"; }

test: .venv/ready
	$(MAKE) -j 2 lint tests

# The variable is made empty, which Python treats as not set. If it were set, each of the hundreds of processes that the
# tests start would compile the modules again.
tests: export PYTHONDONTWRITEBYTECODE =
tests: .venv/ready
	$(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder

pictures: .venv/ready
	PYTHONPATH=Testing $(BIN)/python -m pictures Resources/Screenshots

lint: .venv/ready
	$(BIN)/ruff check .
# Each call that opens a file as text must name the encoding, since a system's default may be ASCII.
	$(BIN)/ruff check --preview --select PLW1514 .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/codespell

# PIP_CONSTRAINT reaches pip's own build environments, too.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Use Python 3.10 or newer: make PYTHON=python3.12")'
	$(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 10))' || $(PYTHON) -m venv --clear .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@
