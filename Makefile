# Thin names for the commands; .ci/run holds what they do.

GOLANGCI = $$(GOWORK=off go -C tools tool -n golangci-lint)
GORELEASER = GOWORK=off go run github.com/goreleaser/goreleaser/v2@v2.15.1
FREEZE = GOWORK=off go run github.com/charmbracelet/freeze@v0.2.2

.PHONY: help test race fmt lint cover fuzz bench vuln release-check release picture ci

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST)

test: ## every test of the workspace
	go test work

race: ## the same with the race detector, shuffled
	.ci/run race

fmt: ## format all Go files
	$(GOLANGCI) fmt

lint: ## formatting, go vet, golangci-lint, prose, workflows
	.ci/run vet format lint prose workflows

cover: ## the root module alone, and its coverage
	.ci/run alone

fuzz: ## every fuzz target; FUZZTIME=1m for longer
	.ci/run fuzz

bench: ## side by side with peers; writes docs/benchmarks.md
	cd bench && GOWORK=off go run ./cmd/report

vuln: ## known vulnerabilities
	.ci/run vuln

release-check: ## what the next version number has to be, and the published program
	.ci/run release

release: ## programs, bills of materials and checksums of a tag in dist/; VERSION=v1.2.3
	@test -n "$(VERSION)" || { echo "which version? make release VERSION=v1.2.3" >&2; exit 2; }
	GORELEASER_CURRENT_TAG=$(VERSION) $(GORELEASER) release --clean --skip=publish,validate

picture: ## what the quickstart shows, for the README
	$(FREEZE) --execute "go run ./examples/quickstart" --execute.timeout 5m --language ansi --window \
		--theme github-dark --font.family monospace --output docs/img/quickstart.svg

ci: ## all that has to hold before a change lands
	.ci/run
