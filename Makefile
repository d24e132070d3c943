# Every target sets up what it needs; CI calls the same ones.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
STARTER := build/starter
# Folder with real data for `make proof`; empty where there is none.
TUNESMITH_SHARED ?=
export TUNESMITH_SHARED
# What `make wheelhouse` takes in besides what is always needed.
EXTRAS ?= serve

.PHONY: setup fmt check test proof test-gpu bench bench-gpu bench-serving demo docs starter wheelhouse lock clean

setup: $(READY)

$(READY): locks/torch.sha256 locks/packages.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r locks/packages.txt
	rm -rf build/torch
	$(BIN)/python -m pip download --quiet --no-deps --dest build/torch torch==2.13.0
	cd build/torch && sha256sum --quiet --check --ignore-missing ../../locks/torch.sha256
	$(BIN)/python -m pip install --quiet build/torch/torch-*.whl
	rm -rf build/torch
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(READY)

fmt: $(READY)
	$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive --severity-level high src
	$(BIN)/python -m pytest --quiet tests/house

# A core for each of two processes: kernels of both on both cores would wait for each other.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadscope --durations=15 -m "not proof and not gpu"

proof: $(READY)
	$(BIN)/python -m pytest --durations=25 -m "proof and not gpu"

# On a machine with a GPU; what was measured on the way stands in build/gpu.xml.
test-gpu: $(READY)
	$(BIN)/python -m pytest -m gpu -o junit_family=xunit1 --junitxml=build/gpu.xml tests/gpu

# Compares training speed and memory with peers, each in an environment of its own. Takes an hour.
bench: $(READY)
	$(BIN)/python benchmarks/train.py --shared "$(TUNESMITH_SHARED)"
	$(BIN)/python benchmarks/render.py

# The same on a GPU, in bf16, with models of 0.6 and 4 billion weights. Takes half an hour.
bench-gpu: $(READY)
	$(BIN)/python benchmarks/gpu.py --shared "$(TUNESMITH_SHARED)"

# Compares serving with peers over HTTP, tokens and all. Takes half an hour; SERVING adds options.
bench-serving: $(READY)
	$(BIN)/python benchmarks/serving.py $(SERVING)
	$(BIN)/python benchmarks/render.py

demo: $(READY)
	$(BIN)/tunesmith demo

docs: $(READY)
	$(BIN)/python tools/make_reference.py
	$(BIN)/python tools/make_matrix.py
	$(BIN)/mkdocs build --quiet --strict

# Makes src/tunesmith/starter/model anew: a corpus, a tokenizer, two runs, an export. Takes hours.
starter: export TUNESMITH_RUNS := $(STARTER)/runs
starter: $(READY)
	rm -rf $(STARTER)
	$(BIN)/python examples/starter/make_corpus.py $(STARTER)/corpus
	$(BIN)/python examples/starter/make_blank.py $(STARTER)/corpus $(STARTER)/blank
	$(BIN)/tunesmith train examples/starter/pretrain.yaml
	$(BIN)/tunesmith export starter-pretrain --to $(STARTER)/pretrained --precision fp32
	$(BIN)/tunesmith train examples/starter/sft.yaml
	$(BIN)/tunesmith export starter-sft --to $(STARTER)/model --precision bf16
	$(BIN)/python examples/starter/measure.py $(STARTER)/model
	rm -rf src/tunesmith/starter/model && cp -r $(STARTER)/model src/tunesmith/starter/model

# Every wheel that the installation needs, for a machine without internet.
wheelhouse: $(READY)
	rm -rf wheelhouse
	$(BIN)/python -m pip wheel --quiet --constraint constraints.txt --wheel-dir wheelhouse \
		torch==2.13.0 '.[$(EXTRAS)]'
	cd wheelhouse && sha256sum *.whl > SHA256SUMS
	@echo "on the other machine: sha256sum -c SHA256SUMS, then"
	@echo "pip install --no-index --find-links wheelhouse 'tunesmith[$(EXTRAS)]'"

lock:
	$(PYTHON) tools/make_locks.py

clean:
	rm -rf $(VENV) build dist site wheelhouse .mypy_cache .pytest_cache .ruff_cache .hypothesis
