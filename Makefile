# Every target works on a fresh machine with Go and git.
SHELL := /bin/bash
GO ?= go
BIN := bin
LINT := $(BIN)/golangci-lint
RUNSC := $(BIN)/runsc
RUNSC_VERSION := v0.0.0-20260905035102-160fafc42237
.DEFAULT_GOAL := help

.PHONY: help
help: ## Show what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: dev
dev: ## Run a server on ./previewd-data
	$(GO) run ./cmd/previewd serve --log-level debug

.PHONY: test
test: ## Run all tests; make race runs them in every layout
	$(GO) test -short -parallel 4 -timeout 20m ./...

.PHONY: race
race: ## Run all tests in every layout with the race detector
	$(GO) test -race -parallel 4 -timeout 30m ./...

.PHONY: check
check: format vet lint verify race mutate ## All that a change must pass: format, vet, lint, generated files, races, mutations

.PHONY: mutate
mutate: ## Switch each mechanism of fault.Mechanisms() off in turn; fail when no test notices
	scripts/mutate

.PHONY: format
format: ## Fail when a file is not formatted
	@unformatted="$$(gofmt -l $$(git ls-files '*.go'))"; \
	if [ -n "$$unformatted" ]; then echo "not formatted, run gofmt -w:"; echo "$$unformatted"; exit 1; fi

.PHONY: vet
vet:
	$(GO) vet ./...
	$(GO) vet -tags failpoint,mutate ./...

.PHONY: lint
lint: $(LINT) ## Run the linters
	$(LINT) run ./...

# The linter has a module of its own, so that its dependencies are not ours.
$(LINT): tools/go.mod tools/go.sum
	cd tools && $(GO) build -o ../$(LINT) github.com/golangci/golangci-lint/v2/cmd/golangci-lint

# gVisor, which tests run builds in when it is there. Debian's is too old.
$(RUNSC):
	GOBIN=$(CURDIR)/$(BIN) CGO_ENABLED=0 $(GO) install gvisor.dev/gvisor/runsc@$(RUNSC_VERSION)

.PHONY: generate
generate: ## Write generated files: api/openapi.yaml and api/gateway.yaml
	$(GO) test ./internal/workerapi ./internal/gateway -run TestOpenAPIIsGolden -update

.PHONY: verify
verify: ## Fail when generated files or go.mod are not up to date
	$(GO) mod tidy -diff
	$(GO) mod verify
	$(GO) test ./internal/workerapi ./internal/gateway -run TestOpenAPIIsGolden

.PHONY: torture
torture: ## Kill, stop, cut off and storm real servers on both engines, in full
	scripts/torture

.PHONY: matrix
matrix: ## Build what people begin with, from npm: frameworks and package managers, opened in Chromium
	$(GO) test -count 1 -timeout 60m -v ./cmd/previewd -run '^TestMatrix$$' -matrix

# How long each fuzz target runs; nightly 10m.
FUZZTIME ?= 30s

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME, 30s by default
	scripts/fuzz $(FUZZTIME)

.PHONY: bench
bench: ## Measure creating, bundling and serving; the last beside nginx if it and wrk are there
	$(GO) test ./internal/app ./internal/runner -run '^$$' -bench . -benchtime 3s
	scripts/bench-preview

.PHONY: screenshots
screenshots: ## Open every template in headless Chromium and save pictures to ./screenshots
	scripts/screenshots
