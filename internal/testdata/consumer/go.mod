module consumer.example/agent

go 1.26.0

require github.com/agrenting/agrenting-go v0.1.0

require (
	github.com/gofrs/flock v0.13.1 // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/hashicorp/go-retryablehttp v0.7.8 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

replace github.com/agrenting/agrenting-go => ../../..
