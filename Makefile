# Everything sets itself up: a virtual environment in .venv with the pinned versions, then the command.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo audit test slow fuzz lint claims docs bench clean

$(VENV)/run.done: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt -e .
	touch $@

$(VENV)/dev.done: $(VENV)/run.done
	$(PIP) -c constraints.txt $$($(BIN)/python -c "import tomllib; groups = tomllib.load(open('pyproject.toml', 'rb')); print(*sum((*groups['dependency-groups'].values(), *groups['project']['optional-dependencies'].values()), []))")
	touch $@

demo: $(VENV)/run.done  ## the main job: faces in, a report out
	$(BIN)/lightleak demo $(ARGS)

THEIRS := runs/their-model
audit: $(VENV)/run.done  ## a network trained elsewhere on painted faces, audited
	$(BIN)/python examples/their_model.py $(THEIRS)
	$(BIN)/lightleak audit --model examples/their_model.py:make_model --weights $(THEIRS)/weights.pt --data folder:$(THEIRS)/people \
		--private all --public folder:$(THEIRS)/strangers --classes $(THEIRS)/names.txt --train-list $(THEIRS)/trained-on.txt \
		--prior rendered --called 'painted faces' $(ARGS)

test: $(VENV)/dev.done  ## the whole suite but the slow tests
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

slow: $(VENV)/dev.done  ## the slow tests, and guards removed one at a time
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m slow $(ARGS)
	$(BIN)/python benchmarks/mutants.py

MINUTES ?= 5
SEED ?= 0
fuzz: $(VENV)/dev.done  ## damaged files and wrong command lines: make fuzz MINUTES=20 SEED=7
	$(BIN)/python benchmarks/fuzz.py --minutes $(MINUTES) --seed $(SEED) $(ARGS)

lint: $(VENV)/dev.done  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

claims: $(VENV)/run.done  ## every sentence of the results' findings against its record
	$(BIN)/python results/claims.py

docs: $(VENV)/dev.done  ## the documentation, strict
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/dev.done  ## speed against the published loop; prints a ratio
	$(BIN)/python benchmarks/ppa.py --quick
	$(BIN)/python benchmarks/lowres.py --quick
	$(BIN)/python benchmarks/plgmi.py --quick
	$(BIN)/python benchmarks/blackbox.py --quick

clean:
	rm -rf $(VENV) site dist .pytest_cache .ruff_cache .hypothesis
