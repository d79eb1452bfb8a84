# Thin names for the commands; .ci/run holds what they do.

GOLANGCI = $$(GOWORK=off go -C tools tool -n golangci-lint)

.PHONY: help test race fmt lint cover fuzz bench vuln release-check release ci

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

release-check: ## what the next version number has to be, and whether programs build the same twice
	.ci/run release

release: ## programs, bills of materials and checksums of a tag in dist/; VERSION=v1.2.3
	@test -n "$(VERSION)" || { echo "which version? make release VERSION=v1.2.3" >&2; exit 2; }
	cd tools && GOWORK=off go run ./release -o ../dist $(VERSION)

ci: ## all that has to hold before a change lands
	.ci/run
