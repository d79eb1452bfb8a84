package agrentingtest

import (
	"bufio"
	"net"
	"net/http"
	"strconv"
)

// answer is the ResponseWriter that every route writes to. It adds the headers
// of the platform, enters the status in the log before a byte leaves, and does
// what faults and idempotency ask for. Handlers may flush, hijack and use
// http.ResponseController as usual.
type answer struct {
	http.ResponseWriter
	x      *exchange
	kind   faultKind
	bytes  int  // left to write before a reset
	hold   bool // keep everything back until release
	status int
	body   []byte // what is held

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
	a.x.answered(status)
	if !a.hold {
		a.sendHeader()
	}
}

func (a *answer) sendHeader() {
	h := a.Header()
	h["Date"] = []string{a.x.s.now().UTC().Format(http.TimeFormat)}
	if h["X-Ratelimit-Limit"] == nil {
		h["X-Ratelimit-Limit"] = []string{strconv.Itoa(a.x.rate.limit)}
		h["X-Ratelimit-Remaining"] = []string{strconv.Itoa(a.x.rate.remaining)}
	}
	a.ResponseWriter.WriteHeader(a.status)
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
	if a.kind != faultReset {
		return a.ResponseWriter.Write(p)
	}
	if len(p) >= a.bytes {
		_, _ = a.ResponseWriter.Write(p[:a.bytes]) // the connection dies anyway
		a.cut()
	}
	a.bytes -= len(p)
	return a.ResponseWriter.Write(p)
}

// cut sends what is buffered and kills the connection.
func (a *answer) cut() {
	_ = http.NewResponseController(a.ResponseWriter).Flush() // as far as it goes
	panic(http.ErrAbortHandler)
}

// release completes the answer: what was held leaves now, or does not.
func (a *answer) release() {
	if a.hijacked {
		return
	}
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	switch a.kind {
	case faultDropAfter:
		panic(http.ErrAbortHandler)
	case faultMalformed:
		a.body = a.body[:len(a.body)/2]
		a.Header().Del("Content-Length")
	default:
	}
	if a.hold {
		a.hold = false
		a.sendHeader()
		if len(a.body) > 0 {
			_, _ = a.Write(a.body) // no reader is left
		}
	}
	if a.kind == faultReset {
		a.cut()
	}
}

// FlushError implements what http.ResponseController looks for.
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
func (a *answer) Flush() { _ = a.FlushError() } // the interface has no error

// Hijack implements http.Hijacker. The log shows a hijacked request as 101.
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

// Unwrap serves http.ResponseController for deadlines and full duplex.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
