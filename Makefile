# Two commands: `make demo` trains and samples, `make test` runs the tests. `make demo-cxr` samples chest
# films, `make demo-brain` translates FLAIR into T1w.
# VENV, PYTHON, OUT and PYTEST_ARGS can be set: make test VENV=/tmp/venv PYTEST_ARGS="-m 'not slow'"
PYTHON ?= python3
VENV ?= .venv
OUT ?= outputs/ct3d/diffusion
CXR ?= outputs/cxr
# Do not change: train/configs/brain/*.yaml name this folder, too.
BRAIN := outputs/brain
PYTEST_ARGS ?=
READY := $(VENV)/diffct-is-installed

.PHONY: demo demo-cxr demo-brain test check types docs clean
.ONESHELL:

demo: $(READY)
	@set -e
	$(VENV)/bin/diffct train ct3d --resume output_dir=$(OUT) data.phantom_scans=28
	$(VENV)/bin/diffct sample $(OUT)/pipeline --number 4 --steps 100 \
		--batch-size 4 --overwrite --out $(OUT)/samples
	echo "Look at $(OUT)/samples/*.png (samples), $(OUT)/previews/*.png and $(OUT)/loss.png"

# Chest films from reports: phantoms, autoencoder, diffusion, samples.
demo-cxr: $(READY)
	@set -e
	$(VENV)/bin/diffct phantom chest --number 3000 --out $(CXR)/films
	$(VENV)/bin/diffct train autoencoder --resume data.manifest=$(CXR)/films output_dir=$(CXR)/autoencoder
	$(VENV)/bin/diffct train diffusion --resume data.manifest=$(CXR)/films output_dir=$(CXR)/diffusion \
		autoencoder=$(CXR)/autoencoder/autoencoder
	$(VENV)/bin/diffct sample $(CXR)/diffusion/pipeline --number 4 --batch-size 4 --overwrite \
		--out $(CXR)/samples \
		--prompt "There is a large left pleural effusion." --prompt "Severe cardiomegaly."
	echo "Look at $(CXR)/samples, $(CXR)/diffusion/previews and $(CXR)/autoencoder/reconstruction.png"

# FLAIR to T1w: synthetic brains, slices, autoencoder, T1w model, ControlNet, figures, one volume.
demo-brain: $(READY)
	@set -e
	$(VENV)/bin/diffct phantom brain --number 80 --anatomy both --out $(BRAIN)/bids
	$(VENV)/bin/diffct prepare brain --bids $(BRAIN)/bids --slices all --size 112 80 --out $(BRAIN)/slices
	for stage in autoencoder diffusion controlnet; do
		$(VENV)/bin/diffct train $$stage --config train/configs/brain/$$stage.yaml --resume
	done
	$(VENV)/bin/diffct evaluate $(BRAIN)/controlnet/pipeline --only fidelity \
		--data $(BRAIN)/slices --steps 4 --out $(BRAIN)/fidelity
	$(VENV)/bin/diffct translate $(BRAIN)/controlnet/pipeline --number 4 --steps 4 --overwrite \
		$(BRAIN)/bids/sub-0000/anat/sub-0000_FLAIR.nii.gz --out $(BRAIN)/translated/T1w.nii.gz
	echo "Look at $(BRAIN)/fidelity/translation.png and $(BRAIN)/controlnet/previews"

# A module's tests run in one process, since they share fixtures; each worker has one core (tests/conftest.py).
test: $(READY)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest \
		--numprocesses logical --maxprocesses 8 --dist loadscope $(PYTEST_ARGS)

check: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# mypy on the package as users see it, by links, since static tools cannot follow `package_dir`.
types: $(READY)
	@set -e
	rm -rf .cache/types/diffct && mkdir -p .cache/types/diffct
	for path in diffct/* pipelines train eval; do ln -s $(CURDIR)/$$path .cache/types/diffct/; done
	cd .cache/types && $(abspath $(VENV))/bin/python -m mypy --config-file $(CURDIR)/pyproject.toml -p diffct

# The pages of docs/ as a website in site/; a broken link is an error, and nothing is fetched.
docs: $(READY)
	@set -e
	$(VENV)/bin/python -m pip install --quiet --editable ".[docs]"
	$(VENV)/bin/python docs/write_configuration.py
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

$(READY): setup.cfg pyproject.toml requirements-data.txt
	@set -e
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --editable ".[dev]"
	$(VENV)/bin/python -m pip install --quiet --no-deps --requirement requirements-data.txt
	touch $(READY)

clean:
	rm -rf $(VENV) outputs site .cache
