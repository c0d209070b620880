# The everyday commands. `make help` lists them.
.PHONY: help install build test lint format sanitize triton demo bench clean
help:            ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12
install:         ## editable install with everything that development needs
	pip install -e '.[dev]'
build:           ## compile csrc in place
	python setup.py build_ext --inplace
test:            ## the test suite
	pytest
lint:            ## what pre-commit and CI check
	ruff check . && ruff format --check . && mypy
	git ls-files 'csrc/*.cpp' 'csrc/*.hpp' | xargs clang-format --dry-run --Werror
format:          ## let the tools format
	ruff check --fix . && ruff format .
	git ls-files 'csrc/*.cpp' 'csrc/*.hpp' | xargs clang-format -i
sanitize:        ## csrc under AddressSanitizer and UndefinedBehaviorSanitizer
	sh csrc/sanitize.sh
triton:          ## the Triton kernels under the interpreter
	.ci/triton
demo:            ## the main job on a small wafer
	semnr demo
bench:           ## benchmarks, peers side by side
	pytest benchmarks -q
clean:           ## remove what was built
	rm -rf build dist *.egg-info semnr_kernels/*.so .pytest_cache .mypy_cache .ruff_cache
