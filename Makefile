# `make` alone lists the targets. Set-up is in deploy/setup, removal in deploy/clean.
# ARGS passes flags on: make run ARGS="--nodes 5", make test ARGS="tests/config".

SEEDS ?= 300
MINUTES ?= 30
ARGS ?=
SECONDS ?= 600
PACKETS ?= 1000000
SEED ?= 1
PYTHON_BIN := .venv/bin

# COMPILED=1 puts the compiled packages before the sources, for these targets and all processes
# that they start; without SAFEPATH `python -m` would look into the present directory first.
COMPILED ?=
ifneq ($(COMPILED),)
SET_UP_COMPILED := @deploy/setup compiled
run bench soak chaos sim: export PYTHONPATH := $(CURDIR)/.compiled:$(CURDIR)
run bench soak chaos sim: export PYTHONSAFEPATH := 1
endif

.DEFAULT_GOAL := help
.PHONY: help run test check compiled test-compiled bench soak chaos judges libpaxos docs sim sim-kernel model fuzz traffic connections crowd cuts gallery clean distclean

help:  ## list the targets
	@grep -E '^[a-z-]+: .*##' Makefile | sed 's/:.*##/\t/'

# The recipe's last line is a plain command, so that make starts it without a shell between:
# a signal to make reaches the launcher, which stops its nodes.
run:  ## start a cluster of three nodes; Ctrl-C stops it
	@deploy/setup run
	$(SET_UP_COMPILED)
	@$(PYTHON_BIN)/kvstore cluster $(ARGS)

test:  ## check, then all tests
	@deploy/setup test
	@$(MAKE) --no-print-directory check
	@$(PYTHON_BIN)/python -m tests.all $(ARGS)

check:  ## ruff and mypy
	@deploy/setup develop
	$(PYTHON_BIN)/ruff check .
	$(PYTHON_BIN)/mypy

compiled:  ## compile the hot modules to .compiled/, for make run COMPILED=1, make bench COMPILED=1
	@deploy/setup compiled

test-compiled:  ## run on the compiled modules all tests that exercise them: ten minutes
	@deploy/setup test
	@deploy/setup compiled
	@$(PYTHON_BIN)/python -m tests.compiled

bench:  ## measure throughput and latency; plots and a report go to bench-results/
	@deploy/setup bench
	$(SET_UP_COMPILED)
	@$(PYTHON_BIN)/python -m bench $(ARGS)

soak:  ## load a cluster for long, look whether anything grows: make soak MINUTES=60
	@deploy/setup test
	$(SET_UP_COMPILED)
	@$(PYTHON_BIN)/python -m bench.soak --minutes $(MINUTES) $(ARGS)

# The last line is a plain command, so that a signal to make reaches the run, which clears up.
chaos:  ## break real processes, judge what clients saw: make chaos ARGS="--minutes 10 --seed 1"
	@deploy/setup test
	$(SET_UP_COMPILED)
	@$(PYTHON_BIN)/python -m bench.chaos $(ARGS)

judges:  ## run other projects' tests: make judges ARGS="--redis DIRECTORY --redis-py DIRECTORY"
	@deploy/setup test
	@$(PYTHON_BIN)/python -m bench.judges $(ARGS)

libpaxos:  ## build libpaxos' C interface (libevent-dev, gcc) into build/libpaxos; docs/libpaxos.md
	@deploy/setup libpaxos
	$(MAKE) --no-print-directory -C p4xos/compat/libpaxos_c $(ARGS)

docs:  ## make docs/configuration.md from the code
	@deploy/setup develop
	@$(PYTHON_BIN)/python -m kvstore.reference

sim:  ## run the simulator on SEEDS seeds: make sim SEEDS=1000
	@deploy/setup develop
	$(SET_UP_COMPILED)
	@$(PYTHON_BIN)/python -m p4xos.testing.simulator --seeds $(SEEDS) $(ARGS)

sim-kernel:  ## the same for programs in the kernel, as root: make sim-kernel SEEDS=300
	@deploy/setup test
	@KERNEL_SEEDS=$(SEEDS) $(PYTHON_BIN)/python -m pytest -q tests/switch/xdp/test_simulated.py \
	  $(ARGS)

model:  ## let spin check larger clusters than make test does; minutes to hours
	@deploy/setup test
	@LONG_MODELS=1 $(PYTHON_BIN)/python -m pytest -s tests/promela $(ARGS)

fuzz:  ## feed every parser spoilt input for SECONDS in all: make fuzz SECONDS=60
	@deploy/setup test
	@$(PYTHON_BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

traffic:  ## a million random packets through the kernel's acceptor: make traffic SEED=2
	@deploy/setup test
	@PACKETS=$(PACKETS) SEED=$(SEED) $(PYTHON_BIN)/python -m pytest -s \
	  tests/switch/xdp/test_traffic.py $(ARGS)

connections:  ## ten thousand short connections, which must leave nothing behind; some minutes
	@deploy/setup test
	@SHORT_CONNECTIONS=10000 $(PYTHON_BIN)/python -m pytest -s \
	  tests/chunnels/test_connections.py -k short_connections $(ARGS)

crowd:  ## ten thousand connections to the libpaxos gateway; memory for each, values told to all
	@deploy/setup test
	@LIBPAXOS_CONNECTIONS=10000 $(PYTHON_BIN)/python -m pytest -s \
	  tests/libpaxos/test_crowd.py $(ARGS)

cuts:  ## cut the power after every call of acceptor and store, damage every file: an hour
	@deploy/setup test
	@POWER_CUTS=all FAILURES=1000 FLIPS=1000 $(PYTHON_BIN)/python -m pytest -s \
	  tests/storage/test_power_cut.py tests/kvstore/test_power_cut.py \
	  tests/kvstore/test_damaged_store.py $(ARGS)

gallery:  ## prove the P4 programs at their default sizes, refute every seeded bug
	@deploy/setup test
	@LONG_PROOFS=1 $(PYTHON_BIN)/python -m pytest -s tests/switch/verify $(ARGS)

clean:  ## remove the data of `make run` and all caches
	@deploy/clean data caches

distclean:  ## clean, and remove the virtual environment
	@deploy/clean data caches environment
