package main

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// elsewhere is a host that is not the platform. It records the headers that it
// gets.
type elsewhere struct {
	url    string
	server *http.Server

	mu   sync.Mutex
	seen []http.Header
}

func listenElsewhere(ctx context.Context) (*elsewhere, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	e := &elsewhere{url: "http://" + l.Addr().String()}
	e.server = &http.Server{Handler: e, ReadHeaderTimeout: time.Minute}
	go func() { _ = e.server.Serve(l) }() // runs until close, which it reports as an error
	return e, nil
}

// ServeHTTP implements http.Handler.
func (e *elsewhere) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = append(e.seen, r.Header.Clone())
	w.WriteHeader(http.StatusNoContent)
}

func (e *elsewhere) requests() []http.Header {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.seen)
}

func (e *elsewhere) close() { _ = e.server.Close() } // an error here does not matter
