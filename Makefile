# `make run`: the whole pipeline on bundled data.  `make test`: the tests.  Nothing else needs to be installed first
# but Python 3.11+, pip and venv, make and git.

PYTHON ?= python3
BIN := .venv/bin
UV_VERSION := 0.13.9
CONFIG ?= config/config.yaml
LEARN := config/paper/methods-digits.yaml config/paper/methods-glyphs.yaml
PROFILE ?= workflow/profiles/local
# a file's name may hold a space or a $: neither make nor a shell reads it, but for "$$CONFIG" in the recipes
override CONFIG := $(value CONFIG)
override PYTHON := $(value PYTHON)
override SET := $(value SET)
export CONFIG PYTHON SET
export PYTHONUTF8 := 1
ifndef HOME # libraries need one
export HOME := $(CURDIR)/work/home
endif
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1

.PHONY: run test test-slow test-paper test-team test-slurm documented env lint types mlflow report audit bench-bilevel bench-methods learn gpu-check lock clean

run: env
	$(BIN)/python -m gessl track --config "$$CONFIG" --set "$$SET" -- \
	  $(BIN)/python -m snakemake --profile "$(PROFILE)" --configfile "$$CONFIG" --config set="$$SET"
	@$(BIN)/python -m gessl audit --config "$$CONFIG" --set "$$SET" || [ $$? -eq 3 ] # 3: sources were edited while it ran
	@echo "report: results/report/*/sigma-report.html   browse: make mlflow   lineage: $(BIN)/gessl trace ID"

test: env .peers/.locked
	$(BIN)/python -m pytest

# the slow ones: workflows at once and in turn, the compiler, two processes
test-slow: env .peers/.locked
	$(BIN)/python -m pytest -m slow --dist worksteal # a few files take most of the time

# every table of the paper at fixture size, from raw files to the audit: hundreds of small jobs
test-paper: env
	$(BIN)/python -m pytest -n 0 -m paper tests/workflow

# 32 writers at once at an MLflow server for a team, which is killed in the middle; needs PostgreSQL
test-team: env
	$(BIN)/python -m pytest -n 0 -m team tests/tracking

# the default grid on a real SLURM with killed, stopped and requeued jobs; installs Debian's packages, so as root
test-slurm: env
	$(BIN)/python -m pytest -n 0 -m slurm tests/cluster

# every command that the documentation shows, after `make run`
documented: env
	$(BIN)/python -m pytest tests/documented --override-ini testpaths= -n 0

env:
	@workflow/make-env $(UV_VERSION)

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow studies
	$(BIN)/snakemake --lint

types: env
	$(BIN)/mypy

mlflow: env
	$(BIN)/mlflow server --host 127.0.0.1 --port 5000 --backend-store-uri sqlite:///mlflow/mlflow.db

report: env
	$(BIN)/python -m gessl report --config "$$CONFIG" --set "$$SET"

audit: env
	$(BIN)/gessl audit

# the hyper-gradient's cost, against Betty, TorchOpt and a plain loop, in one run
bench-bilevel: env .peers/.locked
	PYTHONPATH=.peers $(BIN)/python -m benchmarks.bilevel $(BENCH)

# does each base method learn, alone and under GeSSL, and if not, why? (slow: an hour or more on two cores)
learn: env
	$(BIN)/snakemake --profile "$(PROFILE)" --snakefile studies/Snakefile --configfile studies/grids.yaml all studies

# what each base method costs, alone and under GeSSL, in one run (after `make learn`, whose data it uses)
bench-methods: env
	$(BIN)/python -m benchmarks.methods $(LEARN)

.peers/.locked: benchmarks/requirements.lock
	$(BIN)/python -m uv pip install --python $(BIN)/python --quiet --no-deps --require-hashes --target .peers -r benchmarks/requirements.lock
	touch $@

# on a machine with a GPU, which needs no more than torch, torchvision and pytest (PYTHON: that machine's interpreter)
gpu-check:
	"$$PYTHON" -m pytest -o addopts= -q -m gpu tests/bilevel tests/nets tests/methods/test_learner.py tests/data/test_views.py \
	  tests/data/test_feed.py
	"$$PYTHON" -m benchmarks.bilevel
	"$$PYTHON" -m benchmarks.throughput

lock: env
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url \
	  --python-version 3.11 --all-extras --constraint constraints.txt pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --no-deps \
	  --python-version 3.11 --constraint requirements.lock --group bench -o benchmarks/requirements.lock

clean:
	rm -rf results work logs mlflow .snakemake
