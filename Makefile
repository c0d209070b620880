# The everyday commands. `make help` lists them.
CSRC = git ls-files 'csrc/*.cpp' 'csrc/*.hpp' 'csrc/*.cu' 'csrc/*.cuh'
.PHONY: help install build build-times wheels test lint stubs format sanitize triton demo bench gpu soak fuzz docs clean
help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12
install:         ## editable install with everything that development needs
	pip install -e '.[dev]'
build:           ## compile csrc in place
	python setup.py -q build_ext --inplace
build-times:     ## compile csrc from nothing, away from it; seconds of each object and of all
	python benchmarks/speed/build_times.py
wheels:          ## dist/: a manylinux wheel with the CPU kernels, and an sdist (needs '.[wheels]')
	python .ci/wheels
test:            ## the test suite
	pytest
lint:            ## what pre-commit and CI check: the one list of linters
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	$(CSRC) | xargs clang-format --dry-run --Werror
stubs:           ## metrics.pyi from the kernels' signatures
	python tests/support/stubs.py
format:          ## let the tools format
	ruff check --fix . && ruff format .
	$(CSRC) | xargs clang-format -i
sanitize:        ## csrc under AddressSanitizer and UndefinedBehaviorSanitizer
	sh csrc/sanitize.sh
triton:          ## the Triton kernels under the interpreter
	.ci/triton
demo:            ## the main job on a small wafer
	semnr demo
bench:           ## benchmarks, peers side by side
	pytest benchmarks -q
gpu:             ## the first day with a GPU: build, checks, suites, sanitizers, bench (8 minutes)
	python benchmarks/speed/gpu_day.py
soak:            ## kills and a full disk at every change, random kills, resumed with changed settings, two writers, signals
	SEMNR_SOAK_KILLS=100 SEMNR_SOAK_FUZZ=20000 pytest -q --timeout 3600 tests/scoring/test_stream.py tests/klarf/test_klarf.py -k "killed or damaged or nonsense"
	pytest -q --timeout 3600 -m soak
	pytest -q tests/runs/test_resume.py tests/runs/test_lock.py tests/cli/test_cli_end.py tests/runs/test_outputs.py tests/scoring/test_alarms.py
fuzz:            ## the readers of files under coverage-guided fuzzing, 15 minutes each (FUZZ_SECONDS)
	python tests/fuzz/run.py all --seconds $(or $(FUZZ_SECONDS),900)
docs:            ## the documentation site into build/site: strict links, no network
	NO_MKDOCS_2_WARNING=1 python -m mkdocs build -q
clean:           ## remove what was built
	rm -rf build dist *.egg-info semnr_kernels/*.so .pytest_cache .mypy_cache .ruff_cache
