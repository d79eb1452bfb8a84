package proxy

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// maxPeeked bounds the part of a response's body that is kept for the log, in bytes.
const maxPeeked = 64 << 10

// peeked is the beginning of a response's body, which may contain the ID of the request.
type peeked struct {
	io.ReadCloser

	zipped bool
	text   []byte
}

// peek keeps the beginning of the body of resp while it is passed on, if it can contain
// the ID of the request: the platform writes it into the meta of its envelope. It returns
// nil otherwise.
func peek(resp *http.Response) *peeked {
	if resp.ContentLength > maxPeeked || !strings.Contains(resp.Header.Get("Content-Type"), "json") {
		return nil
	}
	p := &peeked{ReadCloser: resp.Body}
	switch strings.ToLower(resp.Header.Get("Content-Encoding")) {
	case "", "identity":
	case gzipCoding:
		p.zipped = true
	default:
		return nil
	}
	resp.Body = p
	return p
}

// Read implements [io.Reader].
func (p *peeked) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	if room := maxPeeked - len(p.text); room > 0 {
		p.text = append(p.text, b[:min(n, room)]...)
	}
	return n, err
}

// requestID returns the ID in the body; "" if there is none, or if the body was not passed
// on as a whole.
func (p *peeked) requestID() string {
	text := p.text
	if p.zipped {
		text, _ = unzip(text)
	}
	var envelope struct {
		Meta struct {
			RequestID string `json:"request_id"`
		} `json:"meta"`
	}
	if json.Unmarshal(text, &envelope) != nil {
		return ""
	}
	return envelope.Meta.RequestID
}

// requestID returns the ID that the platform has given the request, from a header or else
// from the body of the response; "" if it is not known.
func (c *call) requestID() string {
	for _, name := range []string{"X-Request-Id", "Request-Id"} {
		if id := c.Header().Get(name); id != "" {
			return id
		}
	}
	if c.peeked == nil {
		return ""
	}
	return c.peeked.requestID()
}

// agent returns the agent that the request acts as, or "" if it is not known.
func (c *call) agent() string {
	if id := c.in.Header.Get("X-Agent-Id"); id != "" {
		return id
	}
	return c.proxy.cfg.DefaultAgent
}

// maxLogged bounds a text of a caller or of the platform in the log, in bytes.
const maxLogged = 512

// log writes one record for the request, without its query.
func (c *call) log(ctx context.Context) {
	r := c.in
	attrs := make([]slog.Attr, 0, 9)
	attrs = append(attrs, slog.String("method", cut(r.Method)), slog.String("path", cut(r.URL.EscapedPath())), slog.Int("status", c.status))
	text := func(name, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(name, cut(value)))
		}
	}
	text("code", c.code)
	text("agent", c.agent())
	if c.sent.Generation > 0 {
		attrs = append(attrs, slog.Uint64("generation", c.sent.Generation))
	}
	text("request_id", c.sent.Redact(c.requestID()))
	attrs = append(attrs, slog.Int("attempts", c.sent.Attempts), slog.Duration("duration", time.Since(c.began)))
	c.proxy.cfg.Log.LogAttrs(ctx, slog.LevelInfo, "proxy: request", attrs...)
}

func cut(text string) string {
	if len(text) > maxLogged {
		return text[:maxLogged] + "…"
	}
	return text
}
