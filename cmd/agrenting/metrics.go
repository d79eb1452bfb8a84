package main

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// metricsPage serves metrics in the text format of Prometheus. The handler of promhttp would
// make the program larger by half a megabyte, for formats and compression that a scrape on
// the same machine does not need.
func metricsPage(metrics prometheus.Collector) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	if err := registry.Register(metrics); err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		families, err := registry.Gather()
		if err != nil {
			http.Error(w, "the metrics cannot be collected", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		for _, f := range families {
			if _, err := expfmt.MetricFamilyToText(w, f); err != nil { // the caller has disconnected
				return
			}
		}
	}), nil
}
