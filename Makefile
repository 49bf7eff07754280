# Go and make are all that `make demo` needs. `make test` installs what it is
# missing where it may (Debian, as root or with sudo), else it says what to install.

GO      ?= go
COUNT   ?= 1000
SEED    ?= 1
RACE    := $(shell command -v gcc >/dev/null 2>&1 && echo -race)
LINT    := $(GO) tool -modfile=tools/go.mod golangci-lint

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Send 1,000 mails through queue, worker and SMTP, all in one process (KEEP=1 stays up, COUNT=n)
	@$(GO) run ./cmd/worker demo --count $(COUNT) $(if $(KEEP),--keep)

.PHONY: build
build: ## Build bin/enqueue and bin/worker
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/...

.PHONY: test
test: deps ## Run all tests, on a real Redis, Postfix and Django
	$(GO) test $(RACE) -shuffle=on -timeout 20m ./...
	cd interop && $(GO) test -shuffle=on -timeout 10m ./...

.PHONY: chaos
chaos: deps ## Break everything for about ten minutes and count the mails (SEED=n)
	$(GO) test ./internal/chaos -v -run '^TestChaos$$' -count=1 -timeout 30m -chaos.full -chaos.seed $(SEED)

.PHONY: deps
deps:
	@./.ci/deps

.PHONY: lint
lint: ## Check formatting, go vet, golangci-lint and go.mod
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "gofmt would change: $$unformatted"; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(LINT) run ./...
	cd interop && $(GO) mod tidy -diff && $(GO) vet ./...

.PHONY: docs
docs: ## Write the settings table into README.md
	$(GO) test ./internal/house -run TestREADME_settings -write

.PHONY: bench
bench: bench-smtp ## Measure rendering, the queue and the worker, each beside a baseline
	cd interop && $(GO) test . -run '^$$' -bench WriteTo
	$(GO) test ./tasks -run '^$$' -bench 'Queue|Drain' -benchtime 20000x
	$(GO) test ./tasks -run '^$$' -bench 'Latency' -benchtime 300x

.PHONY: bench-smtp
bench-smtp: ## Compare the SMTP client's ways with each other and with other clients
	$(GO) test ./backends/smtp -run '^$$' -bench . -benchtime 2s
	cd interop && $(GO) test . -run '^$$' -bench SMTP -benchtime 10000x

.PHONY: fuzz
fuzz: ## Run each fuzz test for a minute
	@for f in $$(grep -rlE '^func Fuzz' --include=*_test.go . | grep -v ^./interop); do \
	  for name in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' $$f); do \
	    $(GO) test -run '^$$' -fuzz "^$$name$$" -fuzztime 1m ./$$(dirname $$f) || exit 1; done; done
