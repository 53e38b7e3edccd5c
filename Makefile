# Every target sets up what it needs, in this folder: .venv, made anew whenever pyproject.toml changes.
# tests and lint run through .venv/bin/…, never `python -m`: that would put this folder on sys.path, where
# `pipeline` and `cli` could be imported a second time under their own names.

PYTHONS = python3.12 python3.11 python3
RUN = .venv/bin/

# A name on the PATH may be a shim that fails, and a Python may come without venv: only running it tells.
USABLE = import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
find_python = for python in $(1); do "$$python" -c '$(USABLE)' 2>/dev/null && { echo "$$python"; break; }; done

# Without what starts processes, clusters, servers or browsers: for while one writes.
FAST = tests --ignore tests/cli --ignore tests/faults --ignore tests/object_stores --ignore tests/pipeline

.PHONY: setup test test-fast test-all lint demo bench

setup: .venv/.ready

test: setup
	$(RUN)pytest -n 2

test-fast: setup
	$(RUN)pytest -n 2 $(FAST)

lint: setup
	$(RUN)ruff format --check
	$(RUN)ruff check
	$(RUN)mypy
	$(RUN)pyright --pythonpath .venv/bin/python

# Everything it makes stays in maskmill-demo; a second run goes on there.
demo:
	@began=$$(date +%s); \
	$(MAKE) --no-print-directory setup || exit 1; \
	echo "set-up $$(($$(date +%s) - began)) s"; \
	$(RUN)maskmill demo

bench: setup
	@for script in tests/benchmarks/bench_*.py; do \
		echo "== $$script"; \
		PYTHONPATH=tests $(RUN)python $$script || exit 1; \
	done

test-all: setup
	$(RUN)pytest -n 2 -m "slow or not slow" --hypothesis-profile thorough
	@if $(RUN)python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))'; then \
		echo "Python 3.12: that was it"; \
	elif [ -n "$$($(call find_python,python3.12 $$HOME/.pyenv/versions/3.12*/bin/python))" ]; then \
		$(MAKE) --no-print-directory .venv-3.12/.ready && echo "Python 3.12:" && .venv-3.12/bin/pytest -n 2; \
	else \
		echo "Python 3.12: not found, so the tests did not run on it"; \
	fi

.venv/.ready: pyproject.toml
	@$(call make_environment,.venv,$(PYTHONS))

.venv-3.12/.ready: pyproject.toml
	@$(call make_environment,.venv-3.12,python3.12 $$HOME/.pyenv/versions/3.12*/bin/python)

define make_environment
	if ! [ -x $(1)/bin/python ]; then \
		python=$$($(call find_python,$(2))); \
		[ -n "$$python" ] || { echo "maskmill needs Python 3.11 or newer with its venv module; none found" >&2; exit 1; }; \
		"$$python" -m venv $(1) || exit 1; \
	fi; \
	echo "setting up $(1) (the first time downloads about 3 GB, most of it torch)"; \
	$(1)/bin/python -m pip install -qq --editable '.[dev,s3,cluster,tensorboard]' || exit 1; \
	$(call install_crf,$(1)); \
	touch $(1)/.ready
endef

# Optional: where it cannot be had, one line says so and everything else goes on without it.
define install_crf
	if $(1)/bin/python -c 'import pydensecrf.densecrf' 2>/dev/null; then :; \
	elif $(1)/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 13))'; then \
		echo "without the CRF extra: pydensecrf2 does not compile on Python 3.13 and later"; \
	elif ! command -v cc >/dev/null || ! command -v c++ >/dev/null; then \
		echo "without the CRF extra: no C and C++ compiler found (apt-get install g++, then $(1)/bin/pip install -e '.[crf]')"; \
	elif ! $(1)/bin/python -m pip install -qq --editable '.[crf]' >$(1)/crf.log 2>&1; then \
		echo "without the CRF extra: pydensecrf2 did not compile, see $(1)/crf.log"; \
	fi
endef
