.PHONY: check lint types contracts test interop bench

check: lint types contracts test interop  ## all that CI runs

lint:
	ruff check .
	ruff format --check .

types:
	pyright

contracts:
	lint-imports

test:
	pytest -q
	pytest -q --loop uvloop --runner process tests/contract tests/server tests/client --ignore tests/server/test_soak.py

interop:
	pytest -q -m interop

bench:
	@for program in benchmarks/*.py; do echo "== $$program"; python $$program; done
