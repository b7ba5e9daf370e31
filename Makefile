# `make run` and `make test` are all a fresh machine needs: python3 >= 3.11, pip and make.
# Each target makes .venv first, from hash-pinned requirements. Options of a command go into ARGS:
#   make call ARGS="--json --scenario hours"
#   make test ARGS="tests/bot -x"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FIRSTRING := $(BIN)/python -m bot.cli

# pyright and its node both come in pinned wheels; it looks for no other node and asks no one for news.
export PYRIGHT_PYTHON_GLOBAL_NODE := off
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help run test call check bench chaos evals warm picture lock clean

help:
	@echo "run    serve on http://127.0.0.1:7860 (vendors without a key are played by sims)"
	@echo "call   one test call through the sims, with its timeline"
	@echo "test   the whole test suite"
	@echo "check  format, lint, types, import arrows"
	@echo "bench  measure against a plain Pipecat bot"
	@echo "chaos  play seeded calls while vendors fail"
	@echo "evals  play the agents' eval scenarios through Pipecat's harness"
	@echo "warm   render every fixed line into the audio cache"
	@echo "picture draw the README's pictures from test calls"
	@echo "lock   compile requirements/ from pyproject.toml"

run: $(VENV)/.run
	$(FIRSTRING) serve $(ARGS)

# Silent, so that the report of --json is all there is on standard output.
call: $(VENV)/.run
	@$(FIRSTRING) call $(ARGS)

warm: $(VENV)/.run
	$(FIRSTRING) warm $(ARGS)

evals: $(VENV)/.run
	$(FIRSTRING) evals $(ARGS)

bench: $(VENV)/.dev
	$(FIRSTRING) bench $(ARGS)

chaos: $(VENV)/.dev
	$(FIRSTRING) chaos $(ARGS)

picture: $(VENV)/.run
	$(BIN)/python -m docs.timeline $(ARGS)
	$(BIN)/python -m docs.interruption

# A file's tests stay in one process, and a process that a test took down is replaced. Six, whatever the cores:
# most of the time is spent waiting, for calls that take as long as calls take. Every process, and every server that
# a test starts, would compile our code anew if the environment forbade to keep what is compiled.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses 6 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# One resolution for every Python and platform we run on; no index address ends up in the files.
UV_COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock" \
	pyproject.toml --extra sims

lock: $(VENV)/.dev
	$(UV_COMPILE) --output-file requirements/run.txt
	$(UV_COMPILE) --group dev --constraint requirements/run.txt --output-file requirements/dev.txt

clean:
	rm -rf $(VENV)

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
	"First Ring needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + \
	". If another one is installed, name it: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	@# Debian keeps ensurepip in a package of its own; the system's pip can fill the environment too.
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip $(VENV)
	@touch $@

INSTALL = if [ -x $(BIN)/pip ]; then $(BIN)/python -m pip install $(1); \
	else $(PYTHON) -m pip --python $(BIN)/python install $(1); fi
PIP_OPTIONS := --quiet --disable-pip-version-check --require-hashes

# `.venv/bin/firstring`, run from this folder.
$(BIN)/firstring: | $(VENV)/.made
	@# The guard: worker processes import this file again.
	@printf '#!%s\nimport sys\nsys.path.insert(0, "%s")\nfrom bot.cli import app\nif __name__ == "__main__":\n    app()\n' \
	"$(CURDIR)/$(BIN)/python" "$(CURDIR)" > $@
	@chmod +x $@

$(VENV)/.run: requirements/run.txt | $(VENV)/.made $(BIN)/firstring
	@echo "installing $< into $(VENV) (a minute or two, once)" >&2
	@$(call INSTALL,$(PIP_OPTIONS) -r $<)
	@touch $@

# dev.txt holds everything that run.txt does.
$(VENV)/.dev: requirements/dev.txt | $(VENV)/.made $(BIN)/firstring
	@echo "installing $< into $(VENV) (a minute or two, once)" >&2
	@$(call INSTALL,$(PIP_OPTIONS) -r $<)
	@touch $(VENV)/.run $@
