# Two commands matter to a newcomer: `make run` and `make test`. Both do all
# their own set-up; see README.md.

SQLC_VERSION := v1.31.1
GOLANGCI_LINT_VERSION := v2.15.0
SQLC := bin/sqlc-$(SQLC_VERSION)
GOLANGCI_LINT := bin/golangci-lint-$(GOLANGCI_LINT_VERSION)
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

.PHONY: help
help: ## Lists the targets.
	@grep -hE '^[a-z/-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: run
run: build ## Builds truegreen and starts everything for development.
	@bin/truegreen dev $(ARGS)

.PHONY: build
build: ## Builds bin/truegreen.
	go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/truegreen ./cmd/server

.PHONY: test
test: verify ## Runs all tests against a Postgres of their own.
	go test -count=1 -timeout 40m ./...

.PHONY: test/race
test/race: ## The tests under the race detector (slower).
	go test -race -count=1 -timeout 60m ./...

.PHONY: verify
verify: $(SQLC) ## Checks that generated code is what its sources make.
	$(SQLC) diff

.PHONY: generate
generate: $(SQLC) ## Makes internal/dbsqlc from sql/queries and migrations.
	$(SQLC) generate

.PHONY: lint
lint: $(GOLANGCI_LINT) ## go vet and golangci-lint.
	go vet ./...
	$(GOLANGCI_LINT) run ./...

.PHONY: clean
clean: ## Removes built files; keeps the data in .truegreen.
	rm -rf bin

# Built from source through the module proxy, since a newcomer may have neither.
$(SQLC):
	@mkdir -p bin
	CGO_ENABLED=0 GOBIN="$$(pwd)/bin/.sqlc" go install github.com/sqlc-dev/sqlc/cmd/sqlc@$(SQLC_VERSION)
	@mv bin/.sqlc/sqlc $@ && rmdir bin/.sqlc

$(GOLANGCI_LINT):
	@mkdir -p bin
	GOBIN="$$(pwd)/bin/.lint" go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@mv bin/.lint/golangci-lint $@ && rmdir bin/.lint

.PHONY: bench
bench: ## Measures outbox and settlement, in one run (an hour).
	go test ./bench -run '^$$' -bench . -benchtime 1x -timeout 90m

.PHONY: bench/peers
bench/peers: ## Measures other relays on the same rows and broker (minutes).
	cd bench/peers && go test -run '^$$' -bench Drain -benchtime 1x -timeout 60m

.PHONY: proof
proof: ## Kills and freezes workers, fails each statement, and settles many random worlds (an hour).
	TRUEGREEN_PROOF=1 go test -count=1 -p 1 -timeout 90m -v ./test/crash ./test/settle
	TRUEGREEN_PROOF=1 go test -count=1 -timeout 90m ./test/anomaly
	TRUEGREEN_PROOF=1 go test -count=1 -timeout 90m -run SlowLink ./test/delivery
	TRUEGREEN_PROOF=1 go test -count=1 -timeout 90m -run Reference ./internal/settlement

.PHONY: proof/clock
proof/clock: ## Runs the tests at awkward moments: see test/clock/run (an hour or two).
	test/clock/run '2027-01-01 00:00:30 UTC' UTC -timeout 60m ./...
	test/clock/run '2028-02-29 12:00:00 UTC' Asia/Seoul -timeout 60m ./...
	test/clock/run '2027-03-28 00:58:00 UTC' Europe/Berlin -timeout 60m ./...
	test/clock/run '2027-10-31 00:58:00 UTC' Europe/Berlin -timeout 60m ./...
	test/clock/run '2027-03-14 06:58:00 UTC' America/New_York -timeout 60m ./...
	test/clock/run '2027-11-07 05:58:00 UTC' America/New_York -timeout 60m ./...
	test/clock/run '2026-12-31 14:59:00 UTC' Asia/Seoul -timeout 60m ./...
	test/clock/run '2027-01-31 23:59:00 UTC' UTC -timeout 60m ./...
