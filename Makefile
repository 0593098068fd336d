# What can be done in this checkout. The steps are in scripts/; each says what it does and how long it took.

.DEFAULT_GOAL := help
PROJECT ?= examples/mybox
DOM0 := .venv/bin/dom0
STEP := @scripts/step
# What another Engine or Compose can break, in CI: every call of the API that is made (engine), what its Compose resolves and
# refuses (compose) and creates (compare), builds (images), mounts below /var/run and its ssh (login, elsewhere), containers
# that it left (adoption, root_container, engine_trouble), networks and addresses (ambassador, under_load), link variables;
# and where it is another one than the machine's, whose logins are asked for (pull).
ENGINE_TESTS := tests/engine tests/compose tests/compare tests/images/test_docker_cli.py tests/images/test_feed.py \
	$(patsubst %,tests/machine/test_%.py,login elsewhere adoption root_container engine_trouble ambassador) \
	tests/ambassador/test_under_load.py tests/cli/test_migrate.py \
	tests/machine/test_pull.py::test_a_running_machine_pulls_with_the_login_of_whoever_calls_up
# What depends on how images are kept: their IDs and names, in builds, rollbacks and files.
STORE_TESTS := tests/engine/test_conformance_ground.py tests/images/test_build_project.py \
	$(patsubst %,tests/machine/test_%.py,generations brought_images names)
# Four at a time on two processors: each waits for clocks and disks more than half of its time.
# A file is one lane's: its tests share a machine, and build on each other. The longest come first.
LANES := -n 4 --dist loadfile --no-loadscope-reorder
# The machine is this one, whatever the docker client is set to.
export DOCKER_HOST := unix:///var/run/docker.sock
# Each command that a test starts would else compile half of the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help up down clean test test-engines test-vm escape fuzz coverage lint wheel deb bench bench-ambassador bench-boot bench-farm bench-pull bench-socket bench-web os setup dev
.NOTPARALLEL:

help: ## list these
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-16s %s\n' "$$name" "$$text"; done

up: setup ## install what is missing, build the images, run the machine of examples/mybox (or PROJECT=DIR)
	$(STEP) "Docker Engine" scripts/engine
	$(STEP) --show "dom0 up $(PROJECT)" $(DOM0) up $(PROJECT)
	@scripts/next-steps

down: ## stop and remove that machine; its volumes stay
	$(STEP) --show "dom0 down" scripts/down

clean: ## say what else `up` and `test` left, ask, and delete it
	@scripts/clean

test: dev ## every test, on Docker Engines of its own
	.venv/bin/pytest $(LANES) $(PYTEST)

test-engines: dev ## what depends on the Engine, on the one of Debian's next release, with both of its image stores
	scripts/with-newer-engine env DOM0_TEST_IMAGE_STORE=own .venv/bin/pytest $(LANES) $(ENGINE_TESTS) $(PYTEST)
	scripts/with-newer-engine env DOM0_TEST_IMAGE_STORE=containerd .venv/bin/pytest $(LANES) $(STORE_TESTS) $(PYTEST)

test-vm: dev ## the tests that boot the base OS in virtual machines
	DOM0_TEST_VM=1 .venv/bin/pytest -n 2 --dist worksteal -m vm $(PYTEST)

escape: dev ## try to get out of a scoped socket: ours, or SOCKET=PATH before ENGINE=PATH (SOCKET=path-filter compares)
	DOM0_ESCAPE_SOCKET='$(SOCKET)' DOM0_ESCAPE_ENGINE=$(or $(ENGINE),/var/run/docker.sock) .venv/bin/pytest tests/escape -s --tb=line $(PYTEST)

fuzz: dev ## an hour of processor time of requests at random, from their bytes to what the Engine would get (FUZZ="--seconds 60")
	.venv/bin/python -m dom0.testing.escape.fuzz --seconds 3600 --corpus tests/socketproxy/corpus $(FUZZ)

lint: dev ## style, types, import contract, spelling
	$(STEP) "ruff check" .venv/bin/ruff check
	$(STEP) "ruff format" .venv/bin/ruff format --check
	$(STEP) "mypy" .venv/bin/mypy
	$(STEP) "lint-imports" .venv/bin/lint-imports
	$(STEP) "codespell" .venv/bin/codespell
	$(STEP) "changes" scripts/changes
	$(STEP) "lock files" scripts/check-locks
	$(STEP) "shellcheck" shellcheck -xa os/init os/tree/usr/bin/dom0 $$(find os/tree/usr/lib/dom0 os/rescue/tree/usr/lib/dom0 -maxdepth 1 -type f)

coverage: dev ## which lines the tests run that need no Engine
	.venv/bin/pytest $(LANES) -m "not engine and not chain and not vm" --cov --cov-report=term $(PYTEST)

wheel: dev ## build the wheel, install it in an environment of its own and run it there
	$(STEP) "wheel" scripts/check-wheel

deb: dev ## build a Debian package into dist/
	$(STEP) --show "Debian package" scripts/deb

bench: dev ## measure against docker and docker compose, write docs/benchmarks.md
	.venv/bin/python -m bench $(BENCH)

bench-ambassador: dev ## measure ambassadors against the direct way and proxies, write their part of that page
	$(STEP) "Debian packages" scripts/packages bench
	.venv/bin/python -m bench.ambassador $(BENCH)

bench-boot: dev ## measure a boot of the base OS against a plain Debian, write its part of that page
	$(STEP) "Debian packages" scripts/packages bench
	.venv/bin/python -m bench.boot $(BENCH)

bench-farm: dev ## measure what a farm's server costs with up to 10,000 nodes, in virtual time, and a farm of five real machines, write its parts of that page
	$(STEP) "Debian packages" scripts/packages bench
	.venv/bin/python -m bench.rollout $(BENCH)
	.venv/bin/python -m bench.farm

bench-pull: dev ## measure how images come over lines that break, and beside the Engine's own pull, write its parts of that page
	$(STEP) "Debian packages" scripts/packages bench
	.venv/bin/python -m bench.pull $(BENCH)
	.venv/bin/python -m bench.pull_beside $(BENCH)

bench-socket: dev ## measure a scoped socket against the Engine's own, write its part of that page
	.venv/bin/python -m bench.socketproxy $(BENCH)

bench-web: dev ## measure the page of a machine with 200 services, write its part of that page
	.venv/bin/python -m bench.web $(BENCH)

os: setup ## build the base OS into dom0-os/
	$(STEP) "Debian packages" scripts/packages os
	$(STEP) --show "dom0 os build" $(DOM0) os build $(OS)

setup:
	$(STEP) "Debian packages" scripts/packages run
	$(STEP) "virtual environment" scripts/venv run

dev:
	$(STEP) "Debian packages" scripts/packages dev
	$(STEP) "virtual environment" scripts/venv dev
