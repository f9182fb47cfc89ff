# The two commands: `make demo` and `make test`. Both make their own virtual environment.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# -c: the versions that were tested.
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e

DEMO_CONFIG ?= configs/sentiment_demo.yaml
NEXT_WORD_CONFIG ?= configs/next_word_demo.yaml
NEXT_WORD_RUN = runs/$(basename $(notdir $(NEXT_WORD_CONFIG)))
CHARACTERS_CONFIG ?= configs/char_generation_demo.yaml
CHARACTERS_RUN = runs/$(basename $(notdir $(CHARACTERS_CONFIG)))
DEMO_RUN = runs/$(basename $(notdir $(DEMO_CONFIG)))
TRANSLATION_CONFIG ?= configs/translation_demo.yaml
TRANSLATION_RUN = runs/$(basename $(notdir $(TRANSLATION_CONFIG)))
# The demos' own models, so that the commands go on using those in saved_models/.
DEMO_MODELS = runs/models
BENCH_PLOTS ?= runs/bench
# The tested version of LiteRT for browsers.
LITERT_JS = 2.5.3
SENTIMENT = $(BIN)/python -m pipelines.sentiment
NEXT_WORD = $(BIN)/python -m pipelines.next_word
CHARACTERS = $(BIN)/python -m pipelines.char_generation
TRANSLATION = $(BIN)/python -m pipelines.translation

.PHONY: keyboard-page demo demo-next-word demo-characters demo-translation test lint types unit versions short further slow chaos distribution bench bench-memory bench-scaling bench-console verify-models scorecard results docs clean

demo: $(VENV)/demo.stamp  ## the model in saved_models/ classifies; train, evaluate, export and ask a small one (minutes)
	$(SENTIMENT) predict "What a film!" "I want my money back."
	$(SENTIMENT) train --config $(DEMO_CONFIG)
	$(SENTIMENT) evaluate --run $(DEMO_RUN) --split test --baseline
	$(SENTIMENT) export --run $(DEMO_RUN) --to $(DEMO_MODELS)
	$(SENTIMENT) predict --model $(DEMO_MODELS)/sentiment \
		"A warm, funny and beautifully acted film. I want to see it again." \
		"Two hours of my life that I will never get back: dull, predictable and badly written." \
		"The first half drags, but the ending more than makes up for it."
	@echo
	@echo "training curves:  $(DEMO_RUN)/curves.png"
	@echo "confusion matrix: $(DEMO_RUN)/confusion_test.png"
	@echo "model:            $(DEMO_MODELS)/sentiment (newest version; the second column above is the probability of 'pos')"

demo-next-word: $(VENV)/demo.stamp  ## the model in saved_models/ suggests; train, evaluate, export and ask a small one (the longest of the demos)
	$(NEXT_WORD) predict "This is one of the " "I really enj" "The acting was "
	$(NEXT_WORD) train --config $(NEXT_WORD_CONFIG)
	$(NEXT_WORD) evaluate --run $(NEXT_WORD_RUN) --split test --baseline
	$(NEXT_WORD) export --run $(NEXT_WORD_RUN) --to $(DEMO_MODELS)
	$(NEXT_WORD) export --run $(NEXT_WORD_RUN) --to $(DEMO_MODELS) --format litert --ngrams 3
	$(NEXT_WORD) evaluate --model $(DEMO_MODELS)/next_word_litert --split test
	$(NEXT_WORD) predict --model $(DEMO_MODELS)/next_word "This is one of the " "I really enj" "The acting was "
	@echo
	@echo "now type: $(NEXT_WORD) console --model $(DEMO_MODELS)/next_word_litert"
	@echo "or, with the model of saved_models/: $(NEXT_WORD) console"

demo-characters: $(VENV)/demo.stamp  ## the model in saved_models/ writes; train, evaluate, export and ask a small one (minutes)
	$(CHARACTERS) predict "ROMEO:"
	$(CHARACTERS) train --config $(CHARACTERS_CONFIG)
	$(CHARACTERS) evaluate --run $(CHARACTERS_RUN) --split test
	$(CHARACTERS) export --run $(CHARACTERS_RUN) --to $(DEMO_MODELS)
	$(CHARACTERS) predict --model $(DEMO_MODELS)/char_generation "This film is " "I was "

demo-translation: $(VENV)/demo.stamp  ## the model in saved_models/ translates; train, evaluate, export and ask a small one (minutes)
	$(TRANSLATION) predict --model translation_en_es "Where did you buy that book?"
	$(TRANSLATION) train --config $(TRANSLATION_CONFIG)
	$(TRANSLATION) evaluate --run $(TRANSLATION_RUN) --split test
	$(TRANSLATION) export --run $(TRANSLATION_RUN) --to $(DEMO_MODELS)
	$(TRANSLATION) predict --model $(DEMO_MODELS)/translation_en_fr "Saturday, November 21, 2026" "1,234.50 euros" "ninety-one thousand and two"

test: lint types unit  ## lint, types, tests

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy

unit: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n 2 --dist loadfile

versions:  ## a short part of the tests on each other Python that is installed
	@for version in 3.12 3.13; do \
		if python$$version -c '' 2>/dev/null; then \
			$(MAKE) --no-print-directory short PYTHON=python$$version VENV=$(VENV)-$$version || exit 1; \
		else echo "python$$version is not installed, so it is not tested"; fi; \
	done

short: $(VENV)/dev.stamp  ## a short part of the tests, of every package
	$(BIN)/python -m pytest -n 2 tests/config tests/data/test_corpus.py tests/data/test_tables.py tests/test_files.py \
		tests/test_manifest.py tests/test_text_files.py tests/tokenization tests/ondevice tests/export tests/test_imports.py \
		tests/pipelines/test_damage.py

further: $(VENV)/dev.stamp  ## further cases of the tests, and the commands of docs/ (minutes); CI runs it too
	$(BIN)/python -m pytest -m further -n 2 --dist loadfile

slow: $(VENV)/dev.stamp  ## what `make test` leaves out: whole corpora, processes, further cases; needs NLP_RNN_DATA
	$(BIN)/python -m pytest -m slow

chaos: $(VENV)/dev.stamp  ## looks for crashes; CHAOS="--sections kill disk --trials 9 --seed 2" (default: an hour)
	$(BIN)/python -m tests.chaos $(CHAOS)

distribution: $(VENV)/dev.stamp  ## all tasks on devices, processes and JAX, beside one device: tables (about twenty minutes)
	$(BIN)/python -m pytest -m slow -s tests/distribution tests/data/test_records.py

bench: $(VENV)/bench.stamp  ## layers, steps, epochs and tokenizer beside others (ten minutes on a quiet machine)
	mkdir -p $(BENCH_PLOTS)
	$(BIN)/python -m benchmarks.layers --plot $(BENCH_PLOTS)/layers.png
	$(BIN)/python -m benchmarks.lm_step --plot $(BENCH_PLOTS)/lm_step.png
	$(BIN)/python -m benchmarks.imdb_epoch --plot $(BENCH_PLOTS)/imdb_epoch.png
	$(BIN)/python -m benchmarks.generation --plot $(BENCH_PLOTS)/generation.png
	$(BIN)/python -m benchmarks.layer_memory
	$(BIN)/python -m benchmarks.tokenizer --plot $(BENCH_PLOTS)/tokenizer.png

bench-memory: $(VENV)/demo.stamp  ## constant memory on a corpus of 2 GB (about half an hour)
	$(BIN)/python -m benchmarks.streaming_memory

bench-scaling: $(VENV)/demo.stamp  ## training on 1, 2 and 4 processes (five minutes on a quiet machine)
	$(BIN)/python -m benchmarks.scaling

bench-console: $(VENV)/demo.stamp  ## the latency of a key in the console; needs saved_models/next_word_litert
	$(BIN)/python -m benchmarks.console

verify-models: $(VENV)/dev.stamp  ## each model that comes with the code has its figure; needs NLP_RNN_DATA (VERIFY=--short: a minute)
	$(BIN)/python -m benchmarks.verify_models $(VERIFY)

# TASK: sentiment, next_word, char_generation or translation; CARD="--seeds 1,2,3 training.epochs=8"
scorecard: $(VENV)/dev.stamp  ## trains TASK, scores it once on test and writes its row of RESULTS.md; needs NLP_RNN_DATA
	$(BIN)/python -m benchmarks.scorecard $(TASK) $(CARD)
	$(BIN)/python docs/draw_results.py

results: $(VENV)/dev.stamp  ## the figures of RESULTS.md without pre-training; needs NLP_RNN_DATA (five minutes)
	$(SENTIMENT) train --config configs/sentiment.yaml
	$(SENTIMENT) evaluate --run runs/sentiment --split test --baseline

$(VENV)/demo.stamp: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[demo,console,translation]'
	touch $@

$(VENV)/dev.stamp: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[dev]'
	touch $@

$(VENV)/docs.stamp: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[docs]'
	touch $@

$(VENV)/bench.stamp: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[bench]'
	touch $@

# MODEL: a version of a next-word LiteRT export, such as saved_models/next_word_litert/1; without it, the user chooses files
keyboard-page:  ## the keyboard in a browser, in build/keyboard; needs npm, downloads LiteRT for browsers (20 MB of it are used)
	npm install --silent --no-audit --no-fund --prefix build/npm @litertjs/core@$(LITERT_JS)
	$(PYTHON) docs/keyboard/assemble.py --modules build/npm/node_modules --to build/keyboard $(if $(MODEL),--model $(MODEL))

docs: $(VENV)/docs.stamp  ## the documentation site, in build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean:  ## removes the virtual environment and caches, not runs or models
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
