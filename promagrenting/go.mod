module github.com/agrenting/agrenting-go/promagrenting

go 1.26.0

require (
	github.com/agrenting/agrenting-go v0.1.0
	github.com/prometheus/client_golang v1.23.2
	github.com/stretchr/testify v1.12.1
)

replace github.com/agrenting/agrenting-go => ../
