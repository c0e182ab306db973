# Thin: what takes more than a line is in scripts/ or in the package.
SHELL := /bin/bash
.DEFAULT_GOAL := help
python := .venv/bin/python
# A process runs a file whole, so that its tests share servers. In the order of their names, for by number of tests,
# as xdist would have it, the longest files come last, and one process waits for the other.
side_by_side := -n 2 --dist loadfile --no-loadscope-reorder
# Images that set it make each process of Airflow compile what it imports: 5.8 s a start instead of 2.9.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help setup lock lint format test test-slow bench bench-backup bench-backup-growth bench-capacity bench-capacity-fetch bench-coreml bench-capacity-scale bench-coreml-reference bench-disaster_recovery bench-ui bench-report demo demo-capacity demo-coreml demo-disaster-recovery prove-device down compose-env clean

help: ## show this list
	@grep -hE '^[a-z_-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-24s %s\n", $$1, $$2}'

setup: ## install everything into .venv (PYTHON=3.12 picks another interpreter)
	@scripts/setup.sh

lock: ## renew requirements.lock (ARGS=--upgrade takes the newest versions)
	@scripts/lock.sh $(ARGS)

lint: setup ## ruff, mypy, import-linter
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

format: setup ## let ruff fix and format what it can
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

test: setup ## all tests but the slow ones (ARGS="-k backup" narrows them)
	$(python) -m pytest $(side_by_side) -m "not slow" $(ARGS)

test-slow: setup ## the tests that take minutes each: memory limits, soaks (ARGS as for test)
	$(python) -m pytest -m slow -o faulthandler_timeout=3000 $(ARGS)

bench: bench-backup bench-backup-growth bench-capacity bench-capacity-fetch bench-coreml bench-coreml-reference bench-disaster_recovery bench-ui ## all benchmarks, against named peers

bench-backup: setup ## benchmark backup and restore against restic, rclone sync and aws s3 sync
	$(python) -m benchmarks.backup $(ARGS)

bench-backup-growth: setup ## benchmark backup and restore from 1 to 10 GiB, and up to 200,000 files
	$(python) -m benchmarks.backup_growth $(ARGS)

bench-capacity: setup ## benchmark forecasts against other programs (DATA=folder of CSVs with timestamp,value)
	$(python) -m benchmarks.capacity $(if $(DATA),--data "$(DATA)") $(ARGS)

bench-capacity-fetch: setup ## time what capacity_forecast reads from Prometheus, 100 services
	@scripts/prometheus.sh
	$(python) -m benchmarks.capacity_fetch $(ARGS)

bench-capacity-scale: setup ## time 3,000 series x 90 dates through Airflow (ARGS="--dates 3 --services 20" for a part)
	@scripts/prometheus.sh
	$(python) -m benchmarks.capacity_scale $(ARGS)

bench-coreml-reference: setup ## compare Core ML models on Linux with PyTorch (ARGS="--size 256 --rounds 1" is quick)
	$(python) -m benchmarks.coreml_reference $(ARGS)
bench-coreml: setup ## how often Core ML regressions are called rightly and wrongly, beside other rules
	$(python) -m benchmarks.coreml $(ARGS)

bench-disaster_recovery: setup ## measures of drills beside an independent client; what faults leave behind
	$(python) -m benchmarks.disaster_recovery $(ARGS)

bench-report: setup ## write the results of the benchmarks into README.md and docs/benchmarks.md
	$(python) -m benchmarks.report

bench-ui: setup ## time the Operations pages with 400 backups, 100 services, a year of benchmarks
	$(python) -m benchmarks.operations_pages $(ARGS)

demo: setup ## start Airflow and S3 here, back a demo kit up and restore it
	$(python) -m fastvlm_ops.local.demo

demo-capacity: setup ## start Airflow, S3 and Prometheus here, backfill 30 days of forecasts and score them
	@scripts/prometheus.sh
	$(python) -m fastvlm_ops.local.demo_capacity

prove-device: setup ## try a real Core ML device (DEVICE=name in coreml.yaml, or ARGS="--kind iphone --team …")
	.venv/bin/fastvlm-ops prove-device $(if $(DEVICE),"$(DEVICE)") $(ARGS)

demo-coreml: setup ## start Airflow and S3 here, benchmark Core ML models on a stand-in iPhone as they get worse
	$(python) -m fastvlm_ops.local.demo_coreml

demo-disaster-recovery: setup ## start Airflow, S3 and a service here, test a restore and kill a process of the service
	$(python) -m fastvlm_ops.local.demo_disaster_recovery

down: ## stop what `make demo` started
	@PYTHONPATH=plugins $$($(python) -c '' 2>/dev/null && echo $(python) || echo python3) -m fastvlm_ops.local.down

compose-env: ## write .env, with random secrets, for docker-compose.yaml
	@scripts/compose-env.sh

clean: down ## also remove .venv, .tools, .demo and caches
	rm -rf .venv .tools .demo build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
