# make run PROFILE=sample DATA=/path/to/dataset SET="epochs=1 limit_images=4" FORCE=1
# make report PROFILE=demo
# make sweep SWEEP=profiles/sweeps/ablations.yaml DATA=/path/to/dataset DRY=1
# make bench DATA=/path/to/dataset ROWS="mean_std feeding"
PYTHON ?= python3
PROFILE ?= demo
export PROFILE DATA SET FORCE

.PHONY: run report sweep test test-notebooks test-library torture lab notebooks bench clean

run: .venv/.installed
	@.venv/bin/snakemake --snakefile workflow/Snakefile --cores all --keep-going --rerun-incomplete --nolock $(if $(FORCE),--forcerun notebook) --quiet rules reason host

report: .venv/.installed
	@.venv/bin/petseg report runs/$(if $(filter sweeps/% profiles/sweeps/% %/profiles/sweeps/%,$(PROFILE)),sweeps/)$(basename $(notdir $(PROFILE))) --pdf

sweep: export PETSEG_SWEEP = $(SWEEP)
sweep: .venv/.installed
	@.venv/bin/petseg sweep "$$PETSEG_SWEEP" $(if $(DRY),--dry-run)

# The notebooks are run beside the other tests: both leave cores idle while they start processes and read files.
test: .venv/.test
	rm -rf build/test
	mkdir -p build/test
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	$(MAKE) --jobs 2 --keep-going test-notebooks test-library

test-notebooks: export PETSEG_WORKSPACE = $(CURDIR)/build/test
test-notebooks: NBVAL = --nbval --nbval-current-env --nbval-cell-timeout=600
test-notebooks: .venv/.test
	@OMP_NUM_THREADS=1 .venv/bin/pytest $(NBVAL) notebooks > build/test/notebooks.log 2>&1; status=$$?; cat build/test/notebooks.log; exit $$status

test-library: .venv/.test
	OMP_NUM_THREADS=1 .venv/bin/pytest --numprocesses logical --dist loadgroup tests/test_notebooks.py tests

torture: .venv/.test
	.venv/bin/python tests/torture.py

lab: .venv/.installed
	.venv/bin/jupyter lab notebooks

notebooks: .venv/.installed
	.venv/bin/petseg notebooks

bench: .venv/.test
	.venv/bin/python -m benchmarks $(if $(DATA),--data "$$DATA") $(if $(ROWS),--rows $(ROWS))

# Trainings (runs/) and downloaded photographs stay.
clean:
	rm -rf build data/demo .snakemake .pytest_cache .ruff_cache

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, but $(PYTHON) is " + sys.version.split()[0] + ": name one, as in make PYTHON=python3.13")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --editable . || { .venv/bin/python -c 'import sys; sys.version_info < (3, 14) or print("If immutables could not be built: Snakemake needs it, and it has no wheel for Python 3.14 yet. Install a C compiler and the headers of Python (on Debian gcc and python3-dev), or take Python 3.13: make PYTHON=python3.13", file=sys.stderr)'; exit 1; }
	touch $@

.venv/.test: .venv/.installed
	.venv/bin/python -m pip install --editable '.[test]'
	touch $@
