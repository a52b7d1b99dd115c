# Everything runs in .venv, which each target sets up by itself. Needs Python 3.11 or 3.12 and nothing else.
# KServe and MLServer want different releases of the same packages, so the tests ask KServe in .venv-kserve.
# .venv-triton holds Triton's server, as it comes in a wheel, to ask as well, and .venv-seldon Seldon's client
# where there is a Python 3.12, without which it cannot be installed. .venv-jax has Keras on JAX and no TensorFlow,
# .venv-signing the tool that others sign models with.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PYTHON312 ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.12*/bin/python3.12) $(shell command -v python3.12))
BIN := .venv/bin
READY := .venv/.ready
KSERVE := .venv-kserve/.ready
TRITON := .venv-triton/.ready
SELDON := .venv-seldon/.ready
JAX := .venv-jax/.ready
SIGNING := .venv-signing/.ready
RAY := .venv-ray/.ready
SPARK := .venv-spark/.ready
TOOLS := .tools/.ready
PINNED := mlserver mlserver-tensorflow kserve

.PHONY: help demo check test test-ray test-spark explore fresh fuzz soak lint bench lock sbom audit bundle image-base clean
help:  ## show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: $(READY)  ## train, fit, serve, explain and check; writes demo/report.html
	$(BIN)/explainer-runtime demo

check: lint  ## lint, types, contracts and the tests of what has changed, in a minute and a half
	$(BIN)/python scripts/check.py

# Where an image may be built, it is.
BUILDS := $(and $(filter 0,$(shell id -u)),$(shell command -v buildah),$(shell command -v debootstrap))

test: lint $(KSERVE) $(TRITON) $(SELDON) $(JAX) $(SIGNING) $(TOOLS)  ## run every check and every test
	$(if $(BUILDS),@$(MAKE) --silent image-base || echo 'no base for the image: its build is not tested')
	$(BIN)/pytest -n 2 --dist loadfile

# Engines that start a dozen processes, and take as long as a busy machine lets them: not part of the suite.
test-ray: $(RAY)  ## the laws of a batch on Ray, which is started here, in some minutes
	.venv-ray/bin/python -m pytest -W default tests/ray_laws.py

test-spark: $(SPARK)  ## those of a column of Spark, on this machine; needs Java 17 (JAVA_HOME)
	.venv-spark/bin/python -m pytest -W default tests/spark_laws.py

explore: $(READY)  ## the tests that draw examples, with others than those of the suite
	EXPLAINER_RUNTIME_EXAMPLES=explore $(BIN)/pytest $$(grep -l hypothesis tests/test_*.py)

# What the suite does in an environment that borrows its packages, and with a small network for the demo's.
fresh: $(READY)  ## every command of README and docs from a wheel, all installed anew, by each Python there is
	EXPLAINER_RUNTIME_FRESH='$(PYTHON) $(PYTHON312)' $(BIN)/pytest tests/test_readme.py

fuzz: $(READY)  ## send 100,000 malformed requests (EXPLAINER_RUNTIME_FUZZ, EXPLAINER_RUNTIME_SEED), 1 s for each
	EXPLAINER_RUNTIME_FUZZ=$${EXPLAINER_RUNTIME_FUZZ:-100000} \
	  EXPLAINER_RUNTIME_FUZZ_SECONDS=$${EXPLAINER_RUNTIME_FUZZ_SECONDS:-1} $(BIN)/pytest tests/test_malformed.py

soak: $(READY)  ## ask a server from 16 clients for SOAK_SECONDS (default 600); hours find slower leaks
	$(BIN)/python -m benchmarks.soak --seconds $${SOAK_SECONDS:-600}

lint: $(READY)  ## check style, types and the floors of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(READY)  ## measure against the recorded reference; writes benchmarks/results/latest.json
	$(BIN)/python -m benchmarks

lock: $(READY)  ## pin the image's packages anew; writes deploy/image/requirements
	$(BIN)/python scripts/write_locks.py

sbom: $(READY)  ## bills of materials (CycloneDX) of what the image pins; writes dist/sbom
	@mkdir -p dist/sbom
	for target in $(PINNED); do PYTHONWARNINGS=ignore $(BIN)/uv tool run --quiet --from 'cyclonedx-bom>=7,<8' \
	  cyclonedx-py requirements deploy/image/requirements/$$target.txt --pyproject pyproject.toml \
	  --mc-type application --output-reproducible -o dist/sbom/$$target.cdx.json || exit 1; done

audit: $(READY)  ## ask PyPI whether what the image pins has known vulnerabilities; fails where PyPI cannot say
	for target in $(PINNED); do $(BIN)/uv tool run --quiet 'pip-audit>=2.9,<3' --strict --no-deps --disable-pip \
	  --require-hashes --progress-spinner off -r deploy/image/requirements/$$target.txt || exit 1; done

bundle: $(READY) $(TOOLS)  ## everything for a site without network; writes dist/bundle (BUNDLE_TARGET=mlserver)
	$(BIN)/python scripts/make_bundle.py dist/bundle $${BUNDLE_TARGET:-mlserver}

# A Debian to build the image on where no registry can be reached, with this machine's certificates. Root only.
image-base: .image-base/rootfs.tar  ## a base for the test that builds the image; needs root, buildah, debootstrap
.image-base/rootfs.tar:
	rm -rf .image-base && mkdir .image-base
	debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm .image-base/rootfs
	ln -s python3 .image-base/rootfs/usr/bin/python
	cp -L /etc/ssl/certs/ca-certificates.crt .image-base/rootfs/etc/ssl/certs/
	tar -C .image-base/rootfs -cf $@.part . && rm -rf .image-base/rootfs && mv $@.part $@

clean:  ## remove what the targets above have made
	rm -rf .venv .venv-kserve .venv-triton .venv-seldon .venv-jax .venv-signing .venv-ray .venv-spark .tools .image-base dist demo

# uv resolves and installs several times faster than pip, and is itself one wheel.
$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check 'uv>=0.5'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[all]' --group dev
	@touch $@

$(KSERVE): pyproject.toml | $(READY)
	rm -rf .venv-kserve
	$(BIN)/uv venv --quiet --python $(BIN)/python .venv-kserve
	$(BIN)/uv pip install --quiet --python .venv-kserve/bin/python --editable '.[kserve]'
	@touch $@

# On a processor it is JAX' own wheel, 0.1 GB.
$(JAX): pyproject.toml | $(READY)
	rm -rf .venv-jax
	$(BIN)/uv venv --quiet --python $(BIN)/python .venv-jax
	$(BIN)/uv pip install --quiet --python .venv-jax/bin/python --editable '.[jax]' 'pytest>=8.3,<10'
	@touch $@

$(RAY): pyproject.toml | $(READY)
	rm -rf .venv-ray
	$(BIN)/uv venv --quiet --python $(BIN)/python .venv-ray
	$(BIN)/uv pip install --quiet --python .venv-ray/bin/python --editable '.[ray]' 'pytest>=8.3,<10' hypothesis
	@touch $@

# Spark's own wheel has no dependency but py4j; its workers want pandas.
$(SPARK): pyproject.toml | $(READY)
	rm -rf .venv-spark
	$(BIN)/uv venv --quiet --python $(BIN)/python .venv-spark
	$(BIN)/uv pip install --quiet --python .venv-spark/bin/python --editable '.[batch]' 'pyspark>=4.1,<5' 'pandas<3' \
	  'pytest>=8.3,<10' hypothesis
	@touch $@

# It does not import without pyopenssl, which it does not ask for.
$(SIGNING): | $(READY)
	rm -rf .venv-signing
	$(BIN)/uv venv --quiet --python $(BIN)/python .venv-signing
	$(BIN)/uv pip install --quiet --python .venv-signing/bin/python 'model-signing==1.1.1' 'pyopenssl>=25'
	@touch $@

# Of the wheel only the server is used: its Python side, and what that needs, stay away.
$(TRITON): | $(READY)
	rm -rf .venv-triton
	$(BIN)/uv venv --quiet --python $(BIN)/python .venv-triton
	$(BIN)/uv pip install --quiet --python .venv-triton/bin/python --no-deps 'nvidia-pytriton==0.7.0' 'numpy<2'
	@touch $@

# Only a client, and only for tests: it is under the Business Source License, and nothing here depends on it.
$(SELDON): | $(READY)
	rm -rf .venv-seldon
	if '$(PYTHON312)' -c '' 2>/dev/null; then $(BIN)/uv venv --quiet --python '$(PYTHON312)' .venv-seldon && \
	  $(BIN)/uv pip install --quiet --python .venv-seldon/bin/python 'seldon-core==1.19.0'; fi
	@mkdir -p $(@D) && touch $@

# Helm 3 and 4 and kubectl, which the tests of the chart ask.
$(TOOLS): scripts/fetch_tools.py | $(READY)
	$(BIN)/python scripts/fetch_tools.py .tools
	@touch $@
