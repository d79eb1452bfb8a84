package agrentingtest

import (
	"bufio"
	"maps"
	"net"
	"net/http"
	"strconv"
)

// answer is the ResponseWriter that every route writes to. It adds the
// platform's headers, records the status in the log before it sends a byte, and
// applies faults and idempotency. Handlers may flush, hijack, and use
// http.ResponseController as usual.
type answer struct {
	http.ResponseWriter
	x        *exchange
	delivery delivery
	bytes    int  // left to write before a reset or stall
	hold     bool // hold the whole response until release
	foreign  bool // sent by a gateway: without the platform's headers
	status   int
	body     []byte // held until release

	hijacked bool
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		if !a.hold {
			a.ResponseWriter.WriteHeader(status)
		}
		return
	}
	if a.status != 0 {
		return
	}
	a.status = status
	if !a.hold {
		a.sendHeader()
	}
}

func (a *answer) sendHeader() {
	a.x.answered(a.status)
	h := a.Header()
	if a.delivery == deliverStall {
		if a.bodyless() {
			a.delivery = deliverAll
		}
		h.Del("Content-Length") // the response must not end by itself
	}
	h["Date"] = []string{a.x.s.now().UTC().Format(http.TimeFormat)}
	if h["X-Ratelimit-Limit"] == nil && !a.foreign {
		h["X-Ratelimit-Limit"] = []string{strconv.Itoa(a.x.rate.limit)}
		h["X-Ratelimit-Remaining"] = []string{strconv.Itoa(a.x.rate.remaining)}
	}
	a.ResponseWriter.WriteHeader(a.status)
}

// bodyless reports whether the response has no body.
func (a *answer) bodyless() bool {
	return a.x.r.Method == http.MethodHead || a.status == http.StatusNoContent ||
		a.status == http.StatusNotModified || a.status == http.StatusSwitchingProtocols
}

// Write implements io.Writer.
func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if a.hold {
		a.body = append(a.body, p...)
		return len(p), nil
	}
	if !a.delivery.interrupted() {
		return a.ResponseWriter.Write(p) // #nosec G705 -- the response of a test server
	}
	if len(p) >= a.bytes {
		_, _ = a.ResponseWriter.Write(p[:a.bytes]) // #nosec G705 -- the response of a test server; the connection is closed anyway
		a.interrupt()
	}
	a.bytes -= len(p)
	return a.ResponseWriter.Write(p) // #nosec G705 -- the response of a test server
}

// interrupt sends what is buffered and closes the connection. In a stall, it
// waits until the client or the server closes the connection.
func (a *answer) interrupt() {
	_ = http.NewResponseController(a.ResponseWriter).Flush() // as much as can be sent
	if a.delivery == deliverStall {
		a.x.waitForEnd()
	}
	panic(http.ErrAbortHandler)
}

// discard drops the response that is held, except for the headers in kept.
func (a *answer) discard(kept http.Header) {
	a.status, a.body = 0, nil
	clear(a.Header())
	maps.Copy(a.Header(), kept)
}

// release completes the response: it sends what was held, or interrupts the
// connection.
func (a *answer) release() {
	if a.hijacked {
		return
	}
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if a.delivery == deliverHalf {
		a.body = a.body[:len(a.body)/2]
		a.Header().Del("Content-Length")
	}
	if a.hold {
		a.hold = false
		a.sendHeader()
		if len(a.body) > 0 {
			_, _ = a.Write(a.body) // the client has left
		}
	}
	if a.delivery.interrupted() {
		a.interrupt()
	}
}

// FlushError is called by http.ResponseController.
func (a *answer) FlushError() error {
	if a.hold {
		return nil
	}
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// Flush implements http.Flusher.
func (a *answer) Flush() { _ = a.FlushError() } // the interface returns no error

// Hijack implements http.Hijacker. The log shows a hijacked request with the
// status 101.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	a.x.s.own(conn)
	a.hijacked = true
	if a.status == 0 {
		a.status = http.StatusSwitchingProtocols
		a.x.answered(a.status)
	}
	return conn, rw, nil
}

// Unwrap lets http.ResponseController set deadlines and full duplex.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
