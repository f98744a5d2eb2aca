# Nightshift's commands for developers. `make` alone lists them.
#
#   PYTHON=/path/to/python3.11   the interpreter for .venv/; without it the first one found that is 3.11 or newer
#   JOBS=4                       how many test processes run side by side
#   HOST_DAYS=100                how many simulated host-days `make histories` lives through
#   POLICIES=100000              how many policy files `make fuzz` tries
#   ARGS="..."                   further arguments, for unit, simulate and demo

PYTHON ?=
JOBS ?= 2
HOST_DAYS ?= 2000
POLICIES ?= 10000
ARGS ?=
PY := .venv/bin/python

SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:
unexport PYTHONPATH PYTHONHOME

.PHONY: help venv test lint format unit simulate demo e2e fuzz kills histories libvirt lab lab-image lab-contract lab-troubles client lock
.PHONY: clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

venv: ## set up .venv/ from the lock, if anything has changed
	@tools/setup_venv.sh $(PYTHON)

test: lint unit ## everything that must hold before a change is merged

lint: venv ## format, lint, types, direction of imports
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports

format: venv ## let the linter repair what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

unit: venv ## the tests, e.g. ARGS="-k park"
	$(PY) -m pytest -n $(JOBS) $(ARGS)

simulate: venv ## a simulated rack through a day and a night, e.g. ARGS="--seed 7"
	.venv/bin/nightshift simulate $(ARGS)

demo: venv ## two days on the real processes in three minutes, e.g. ARGS="--seed 7"
	.venv/bin/nightshift demo $(ARGS)

e2e: venv ## the real processes: every part killed, paused or doubled amid a swap, and whole two days (CI)
	@# Real processes in real time: what fails beside other scenarios is lived through once more, alone; then it fails for good.
	NIGHTSHIFT_E2E=all $(PY) -m pytest -n $(JOBS) --dist worksteal tests/e2e || \
		NIGHTSHIFT_E2E=all $(PY) -m pytest -n 0 --last-failed --last-failed-no-failures none tests/e2e

fuzz: venv ## 10,000 random command lines, 10,000 random requests, 10,000 policy files (CI); POLICIES=100000 takes longer
	NIGHTSHIFT_FUZZ=10000 $(PY) -m pytest -n $(JOBS) tests/cli/test_random_command_lines.py tests/api/test_strange_requests.py
	NIGHTSHIFT_FUZZ=$(POLICIES) $(PY) -m pytest -n $(JOBS) tests/policies/test_loader_fuzz.py

kills: venv ## a worker killed at every driver call and every commit, in turn (CI)
	NIGHTSHIFT_KILL=all $(PY) -m pytest -n 0 -s tests/simulation/test_kill_injection.py
	NIGHTSHIFT_KILL=all $(PY) -m pytest -n $(JOBS) tests/simulation/test_two_actors.py

histories: venv ## long simulated histories against every invariant (CI)
	$(PY) -m tests.simulation.histories --host-days $(HOST_DAYS) --jobs $(JOBS)

libvirt: venv ## the drivers' contract on a libvirtd of its own, as root (CI)
	NIGHTSHIFT_TEST_LIBVIRT=qemu:///system tools/private_libvirtd.sh $(PY) -m pytest -n 0 $(ARGS) \
		tests/contract/test_contract_libvirt.py

lab-image: venv ## build the virtual DGX-2, as root; the other lab targets need no root then
	$(PY) -m tests.lab build

lab: venv ## a day on the virtual DGX-2: real libvirt, QEMU and VFIO (CI)
	$(PY) -m tests.lab day

lab-contract: venv ## the drivers' contract on the virtual DGX-2, with devices (CI)
	NIGHTSHIFT_LAB=1 $(PY) -m pytest -n 0 $(ARGS) tests/contract/test_contract_lab.py

lab-troubles: venv ## virtual DGX-2s with something wrong: no IOMMU, a full disk, a refused login (CI)
	NIGHTSHIFT_LAB=1 $(PY) -m pytest -n 0 $(ARGS) tests/lab/test_troubles.py

client: venv ## install the wheel alone, as a user would, and run it
	tools/check_light_client.sh $(PY)

lock: venv ## write requirements/ anew from pyproject.toml; UPGRADE=1 takes newer versions
	UPGRADE=$(UPGRADE) tools/lock.sh .venv/bin/uv

clean: ## remove .venv/, caches and what was built
	rm -rf .venv build dist reports .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
