# Everything that a developer does, each with all its set-up. `make test` and `make demo` need a Debian or Ubuntu machine with Rust.
# Tools and build results live in $BINLAKE_CACHE (default ~/.cache/binlake), outside of the checkout.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup test lint licences unit integration readers demo test-spark test-kcl test-chaos test-engines bench bench-peers clean test-debezium test-corrections test-glue

export BINLAKE_CACHE ?= $(HOME)/.cache/binlake
export CARGO_TARGET_DIR ?= $(BINLAKE_CACHE)/target
export BINLAKE_PYTHON ?= $(BINLAKE_CACHE)/python/bin/python
CARGO := cargo --locked

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | column -t -s $$'\t'

setup: ## what the tests need: packages, MySQL, MariaDB, DynamoDB Local, Python, a stand-in for Kinesis
	@scripts/packages.sh
	@scripts/mysql.sh mysql >/dev/null
	@scripts/mysql.sh mariadb >/dev/null
	@scripts/dynamodb.sh >/dev/null
	@scripts/python.sh tests/readers/requirements.txt
	@scripts/kinesis.sh >/dev/null

test: setup lint licences ## set-up, lints, all tests with the three readers' Python
	$(CARGO) test
	@echo "make test: all passed"

lint: ## format and clippy, warnings are errors
	cargo fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

licences: ## only licences that go with Apache-2.0 among the dependencies
	@scripts/licences.sh

demo: ## a private MySQL, load, the service and a live chart, all on this machine
	@scripts/packages.sh
	@scripts/mysql.sh mysql >/dev/null
	$(CARGO) build --bin binlake
	@BINLAKE_MYSQLD="$$(scripts/mysql.sh mysql)" "$$CARGO_TARGET_DIR/debug/binlake" demo

test-spark: setup ## Spark 3.5 with Hudi 0.15 reads our tables, writes into them, takes them over and gives them back (about 15 minutes)
	@scripts/spark.sh
	BINLAKE_TEST_SPARK=1 $(CARGO) test --test integration readers::spark -- --nocapture
	BINLAKE_TEST_SPARK=1 $(CARGO) test --test integration readers::handover -- --nocapture --test-threads=1

test-kcl: setup ## Amazon's Java beside us: the Kinesis Client Library at our streams and lease table, its aggregated records (about 2 minutes)
	@scripts/kcl.sh >/dev/null
	@scripts/kcl.sh kpl >/dev/null
	BINLAKE_TEST_KCL=1 $(CARGO) test --test integration kcl -- --nocapture

test-chaos: setup ## kill -9 at random, 50 rounds; three workers on a failing Kinesis, 10 minutes; CHAOS_ROUNDS, CHAOS_SECONDS, CHAOS_SEED choose
	CHAOS_ROUNDS="$${CHAOS_ROUNDS:-50}" $(CARGO) test --test integration crash:: -- --nocapture
	CHAOS_ROUNDS="$${CHAOS_ROUNDS:-50}" $(CARGO) test --test integration cluster::chaos::three_workers_and_two_captures_with -- --nocapture
	CHAOS_SECONDS="$${CHAOS_SECONDS:-600}" $(CARGO) test --test integration cluster::chaos::three_workers_and_two_captures_on_kinesis -- --ignored --nocapture
	CHAOS_SECONDS="$$(( $${CHAOS_SECONDS:-600} / 3 ))" $(CARGO) test --test integration cluster::chaos::the_same_in_dms_json -- --ignored --nocapture

test-corrections: setup ## prices with corrections, a million versions, asked as they were known then (about 4 minutes); BINLAKE_VERSIONS chooses
	BINLAKE_VERSIONS="$${BINLAKE_VERSIONS:-1000000}" $(CARGO) test --test integration history::corrections -- --nocapture

test-debezium: setup ## Debezium's embedded engine and ours make the same events of one binlog
	@scripts/debezium.sh
	BINLAKE_TEST_DEBEZIUM=1 $(CARGO) test --test integration formats::debezium -- --nocapture

test-glue: setup ## a catalog that refuses stale versions (ministack), beside moto
	BINLAKE_TEST_GLUE=1 $(CARGO) test --test integration glue:: -- --nocapture

test-engines: test-spark ## every engine that reads the tables: hudi-rs and DuckDB (with make test), Spark
	$(CARGO) test --test integration readers:: -- --nocapture

bench: setup ## capture, merge, end to end, freshness: see docs/benchmarks.md
	@scripts/bench.sh

bench-peers: setup ## the same data through Debezium, Spark with Hudi, delta-rs and DuckDB
	@scripts/bench_peers.sh
