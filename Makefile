# make check: everything that must pass, in the Python environment that is active; see CONTRIBUTING.md.
.PHONY: check test lint types examples pages docs
.NOTPARALLEL:

PYTHON ?= python
TEST ?= pytest -n auto
export MPLBACKEND ?= Agg

check: lint types examples test

# with the doctests; last in `check`, so that pytest's summary is the last line
test:
	@echo "== $(TEST)"
	@$(TEST)

lint:
	@echo "== linter"
	@ruff check .
	@ruff format --check -q .

# the package, and what its users write
types:
	@echo "== types"
	@mypy
	@pytest -q -m slow tests/test_typing.py

# the blocks of the pages, and the scripts: all but those that train for minutes, whose results are in the package
examples:
	@echo "== examples"
	@pytest -q -m slow -n auto tests/test_docs.py -k python_blocks_run
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	for script in $(filter-out examples/train_%,$(wildcard examples/*.py)); do \
		echo "-- $$script"; \
		(cd "$$folder" && $(PYTHON) "$(CURDIR)/$$script" >log 2>&1) || { tail -n 50 "$$folder/log"; exit 1; }; \
	done

# the pages that are written from the code
pages:
	$(PYTHON) docs/make.py

# the site, into docs/_build/html: warnings are errors
docs: pages
	$(PYTHON) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"
