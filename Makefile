.PHONY: check debian lint types contracts test test-rooms test-commands test-edge pythons interop lerobot-client ray ray-drills coverage bench gpu

# A run of tests waits for more than half of its time: three kinds of them run at a time, and two Pythons, on as few as
# two cores; each kind tells its lines together, and one that fails hides no other.
AT_ONCE ?= 2
TOGETHER := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

# Beside this Python the oldest with the oldest dependencies, where most breaks; `make pythons` has the others.
check: lint types contracts  ## what .ci/run runs
	@$(MAKE) --no-print-directory --keep-going -j3 $(TOGETHER) test-rooms test-commands pythons ray test-edge interop PYTHONS=oldest

debian:  ## Prometheus, chromium and HAProxy, which some tests drive: for root on Debian; nobody else's machine is changed
	@sh scripts/debian_programs.sh

lint:
	ruff check .
	ruff format --check .

types:
	pyright

contracts:
	lint-imports

COMMANDS := bench cli compat docs doctor examples founding integration logs recordings replay
test: test-rooms test-commands test-edge

test-commands:  # what starts programs
	pytest -q $(COMMANDS:%=tests/%)

test-rooms:  # all else
	pytest -q $(COMMANDS:%=--ignore=tests/%)

test-edge:
	pytest -q --loop uvloop --runner process tests/contract tests/server tests/client --ignore tests/server/test_soak.py

pythons:  ## the quick suites, bare, on other Pythons where they are found, and with the oldest dependencies
	python scripts/check_pythons.py --at-once $(AT_ONCE) $(if $(PYTHONS),--job $(PYTHONS))

interop:
	pytest -q -m 'interop and not heavy'

lerobot-client:  ## LeRobot's own RobotClient drives a served policy: with torch and LeRobot in an environment of its own
	pytest -q -m heavy

ray:  ## policies on a cluster of Ray on this machine, in an environment of its own: a selection of the drills
	python scripts/check_ray.py

ray-drills:  ## all of them
	python scripts/check_ray.py --drills

coverage:  ## branches of what is pure; docs/coverage.md says what is left, and why
	coverage run -m pytest -q tests/core tests/dialects tests/websocket tests/golden tests/fuzz tests/contract
	coverage report

bench:
	@for program in benchmarks/*.py; do echo "== $$program"; python $$program; done

gpu:  ## Wall-X on this machine's NVIDIA GPU: right, fast, served; the first wrong result ends it
	@python scripts/check_gpu.py
