# `make help` lists what there is. Everything runs from a fresh clone: tools are built from scripts/tools on first use.

SHELL     := /bin/bash
# What is compiled is the same in every directory, so that a clone finds it in the cache.
export GOFLAGS := $(GOFLAGS) -trimpath
.SHELLFLAGS := -euo pipefail -c
MODULES   := internal migrations pkg services tests
PACKAGES   = $(shell go list -f '{{.Dir}}/...' -m)
TOOLS     := .cache/tools
BINARIES  := registry dispatcher supervisor reeve
IMAGES    := demo-agents registry dispatcher cli supervisor
WITH_ENV  := go run ./internal/testenv/cmd/withenv

# Three packages of tests at a time and four tests of each: most of them wait. The longest, tests/e2e, is among the first.
# Those that load a broker or look at times come before, by themselves. `make lint` and `make verify` vet.
TEST_FLAGS := -p 3 -parallel 4 -vet off -timeout 15m
TESTED      = $(shell go list -f '{{.Dir}}/...' -m | sort -r)
LOADING    := ./tests/bench ./tests/sweep
OTHERS      = $(shell go list $(TESTED) | grep -v -E '/tests/(bench|sweep)$$')
GOTESTSUM  := $(TOOLS)/gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Real GitHub events through five agents, on this machine (DEMO_EXIT=1: end after the summary)
	@echo "building reeve and the demo"
	@go build -trimpath -o bin/ ./services/reeve/cmd/reeve ./tests/demo
	@bin/demo

.PHONY: build
build: ## Build the binaries into bin/
	@for b in $(BINARIES); do go build -trimpath -o bin/$$b ./services/$$b/cmd/$$b; done

# Everything is compiled, and what several packages' tests start is built, before the first test runs: tests that run beside the
# compiler wait for it.
.PHONY: test
test: $(TOOLS)/gotestsum ## All tests that need no container engine, on Apache Kafka where Java and Maven are
	@echo "compiling"
	@go list -export -test -deps $(TESTED) >/dev/null
	@bin=$$(mktemp -d); trap 'rm -rf "$$bin"' EXIT; \
	go build -ldflags=-w -o "$$bin/" $(foreach b,$(BINARIES),./services/$b/cmd/$b) ./tests/e2e/goworker ./tests/sweep/agent; \
	REEVE_TEST_BIN="$$bin" $(WITH_ENV) bash -c 'failed=0; $(GOTESTSUM) -- $(TEST_FLAGS) $(LOADING) || failed=1; \
	$(GOTESTSUM) -- $(TEST_FLAGS) $(OTHERS) || failed=1; exit $$failed'

.PHONY: test-race
test-race: $(TOOLS)/gotestsum ## The same with the race detector
	@$(WITH_ENV) $(GOTESTSUM) -- -race -p 2 -timeout 30m $(TESTED)

.PHONY: images
images: ## Build the container images reeve-registry, -dispatcher, -supervisor, -cli and -demo-agents
	@for i in $(IMAGES); do echo "building reeve-$$i"; docker build --quiet --target $$i --tag reeve-$$i --file deployments/docker/Dockerfile . >/dev/null; done

.PHONY: test-containers
test-containers: engine images ## The end-to-end tests in containers, and the compose stack; needs Docker with Compose
	@cd tests && go test -tags containers -count 1 -timeout 30m -v -run '^Test(Containers|Compose)' ./e2e

# Without an engine nothing is built for minutes first.
.PHONY: engine
engine:
	@docker version --format 'Docker {{.Server.Version}}' || { echo "no container engine answers: install Docker, start it, and see that 'docker info' answers; 'make test' needs none" >&2; exit 1; }
	@docker compose version || { echo "Docker has no compose plugin: see https://docs.docker.com/compose/install/" >&2; exit 1; }

.PHONY: sweep
sweep: ## Kill and stop the services and Kafka over and over and account for every task (SEED=n ROUNDS=n ONLY=services|broker|storm|dev)
	@cd tests && go run ./sweep/cmd/sweep $(if $(SEED),-seed $(SEED)) $(if $(ROUNDS),-rounds $(ROUNDS)) $(if $(ONLY),-only $(ONLY))

.PHONY: bench
bench: ## Throughput, CPU and latency beside a bare copy by franz-go; what retries and agents in trouble cost (PART=one)
	@cd tests && go run ./bench/cmd/bench $(if $(PART),-part $(PART))

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## Static checks, the modules' import rules among them
	@$(TOOLS)/golangci-lint run $(PACKAGES)

.PHONY: generate
generate: $(TOOLS)/oapi-codegen ## Make generated code from its sources
	@go generate $(PACKAGES)

.PHONY: verify
verify: ## Check what `make fix` mends: generated code, go.mod files, formatting; and that each module stands alone
	@scripts/verify $(MODULES)

.PHONY: fix
fix: generate $(TOOLS)/golangci-lint ## Mend what `make verify` and `make lint` can mend by themselves
	@gofmt -w $(MODULES)
	@for m in $(MODULES) scripts/tools deployments/examples/go-hello; do (cd $$m && GOWORK=off go mod tidy); done
	@go work sync
	@$(TOOLS)/golangci-lint run --fix $(PACKAGES) || true

# One binary a tool, rebuilt when the pinned versions change.
$(TOOLS)/%: scripts/tools/go.mod scripts/tools/go.sum
	@echo "building $* (once)"
	@mkdir -p $(TOOLS)
	@cd scripts/tools && GOWORK=off go build -o ../../$@ "$$(GOWORK=off go list tool | grep -E '/$*$$')"
	@touch $@
