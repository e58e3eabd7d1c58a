.PHONY: check lint types contracts test bench

check: lint types contracts test  ## all that CI runs

lint:
	ruff check .
	ruff format --check .

types:
	pyright

contracts:
	lint-imports

test:
	pytest -q

bench:
	@for program in benchmarks/*.py; do echo "== $$program"; python $$program; done
