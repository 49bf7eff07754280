# Go and make are all that `make demo` needs. `make test` installs what it is
# missing where it may (Debian, as root or with sudo), else it says what to install.

GO      ?= go
COUNT   ?= 1000
SEED    ?= 1
CHUNKING ?= off
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
RACE    := $(shell command -v gcc >/dev/null 2>&1 && echo -race)
LINT    := $(GO) tool -modfile=tools/go.mod golangci-lint

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Send 1,000 mails through queue, worker and SMTP, all in one process (KEEP=1 stays up, COUNT=n)
	@$(GO) run ./cmd/worker demo --count $(COUNT) $(if $(KEEP),--keep)

.PHONY: web
web: ## Show it to click through: contact form, worker and caught mail, all in one process
	@$(GO) run ./examples/web

.PHONY: build
build: ## Build bin/enqueue and bin/worker
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/...

.PHONY: image
image: ## Build the container image mailpouch:VERSION (VERSION=v1.2.3; the tag or commit if it is not given)
	docker build --build-arg VERSION=$(VERSION) -t mailpouch:$(VERSION) .

.PHONY: deploy-check
deploy-check: ## Check docker-compose.yml, the systemd unit and the Kubernetes example
	cd deploy && $(GO) test -count=1 ./...

.PHONY: man
man: ## Write the manual pages of both commands into man/
	@for c in enqueue worker; do $(GO) run ./cmd/$$c man man || exit 1; done

.PHONY: completion
completion: ## Write shell completion (bash, zsh, fish) for both commands into completion/
	@mkdir -p completion
	@for c in enqueue worker; do for s in bash zsh fish; do \
	  $(GO) run ./cmd/$$c completion $$s > completion/$$c.$$s || exit 1; done; done

.PHONY: test
test: deps ## Run all tests, on a real Redis, Postfix and Django
	$(GO) test $(RACE) -shuffle=on -timeout 20m ./...
	cd interop && $(GO) test -shuffle=on -timeout 10m ./...
	cd deploy && $(GO) test -shuffle=on -timeout 5m ./...
	cd bench && $(GO) test -shuffle=on -timeout 10m ./...

.PHONY: chaos
chaos: deps ## Break everything for about fifteen minutes and count the mails (SEED=n CHUNKING=auto)
	$(GO) test ./internal/suite/chaos -v -run '^TestChaos(_intake)?$$' -count=1 -timeout 45m -chaos.full -chaos.seed $(SEED) -chaos.chunking $(CHUNKING)

.PHONY: corpus
corpus: deps ## Send every .eml of DIR through raw, queue, worker and a mail server, and compare (DIR=directory)
	$(GO) test ./internal/suite/corpus -v -run '^TestCorpus$$' -count=1 -timeout 30m -corpus.dir $(abspath $(or $(DIR),$(error DIR=directory is missing)))

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
	cd deploy && $(GO) mod tidy -diff && $(GO) vet ./...
	cd bench && $(GO) mod tidy -diff && $(GO) vet ./... && $(GO) tool -modfile=../tools/go.mod golangci-lint run ./...

.PHONY: vuln
vuln: ## Look for known vulnerabilities in what every module uses (needs the database of the Go project)
	@./.ci/vuln

.PHONY: docs
docs: ## Write the generated parts of README.md, CONTRIBUTING.md, docs/ and the comments of aliases
	$(GO) test ./internal/suite/repo -run '^TestGenerated_' -write
	cd bench && $(GO) run . --from $(BENCH_RESULTS) --docs ../docs --readme ../README.md

# A full run writes the pages, and shows itself beside the last full run. A quick one writes
# only where OUT says, for its numbers are worth little.
BENCH_RESULTS := ../docs/performance/results.json
BENCH_FULL     = --docs ../docs --readme ../README.md --json $(BENCH_RESULTS) $(if $(wildcard docs/performance/results.json),--compare $(BENCH_RESULTS))
BENCH_QUICK    = --quick $(if $(OUT),--docs $(abspath $(OUT)) --json $(abspath $(OUT))/performance/results.json)

.PHONY: bench
bench: deps ## Measure all beside baselines and write docs/performance.md, in 12 minutes (QUICK=1: two, writes to OUT=dir only; ONLY=drain/single,bulk: these)
	cd bench && $(GO) run . $(if $(ONLY),--only '$(ONLY)',$(if $(QUICK),$(BENCH_QUICK),$(BENCH_FULL)))

.PHONY: bench-smtp
bench-smtp: ## Compare the SMTP client and the rendering with those of others
	$(GO) test ./backends/smtp -run '^$$' -bench . -benchtime 2s
	cd interop && $(GO) test . -run '^$$' -bench SMTP -benchtime 10000x
	cd interop && $(GO) test . -run '^$$' -bench WriteTo

.PHONY: fuzz
fuzz: ## Run each fuzz test for a minute
	@for f in $$(grep -rlE '^func Fuzz' --include=*_test.go . | grep -v ^./interop); do \
	  for name in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' $$f); do \
	    $(GO) test -run '^$$' -fuzz "^$$name$$" -fuzztime 1m ./$$(dirname $$f) || exit 1; done; done
	cd interop && $(GO) test . -run '^$$' -fuzz '^FuzzEnmime$$' -fuzztime 1m
