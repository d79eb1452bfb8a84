package agrentingtest

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Webhook is a webhook request about a task, as the platform sends it to a
// receiver, such as Webhook{Event: "task.completed", TaskID: "42", Secret: "s"}.
// Most programs only set these three fields.
type Webhook struct {
	// Event is the value of X-Webhook-Event, such as "task.completed".
	Event string
	// TaskID is the value of X-Webhook-Task-Id, and part of the body unless Body is
	// set.
	TaskID string
	// Status, Output, and ErrorReason are part of the body unless Body is set.
	Status      string
	Output      any
	ErrorReason string
	// Body is sent unchanged instead of a body with the fields above.
	Body []byte

	// Secret signs the body. If it is empty, the request has no signature. If
	// Signature is set, it is sent instead of the valid one, to test that receivers
	// refuse it.
	Secret, Signature string
	// Header is the name of the signature header. The default is
	// X-Webhook-Signature.
	Header string
}

// SignWebhook returns the base64-encoded HMAC-SHA256 of body, in the form that
// the platform's own client verifies.
func SignWebhook(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = mac.Write(body)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Request returns the webhook as a request to url, which can be sent or passed to
// a handler. The body has the current time.
func (h Webhook) Request(ctx context.Context, url string) (*http.Request, error) {
	body, err := h.body(time.Now())
	if err != nil {
		return nil, err
	}
	return h.request(ctx, url, body)
}

func (h Webhook) body(now time.Time) ([]byte, error) {
	if h.Body != nil {
		return h.Body, nil
	}
	m := map[string]any{"task_id": h.TaskID, "status": h.Status, "created_at": now.UTC().Format(time.RFC3339)}
	if h.Output != nil {
		m["output"] = h.Output
	}
	if h.ErrorReason != "" {
		m["error_reason"] = h.ErrorReason
	}
	body, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("agrentingtest: the webhook's output does not encode: %w", err)
	}
	return body, nil
}

func (h Webhook) request(ctx context.Context, url string, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("agrentingtest: webhook: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	for name, value := range map[string]string{"X-Webhook-Event": h.Event, "X-Webhook-Task-Id": h.TaskID} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	name, signature := h.Header, h.Signature
	if name == "" {
		name = "X-Webhook-Signature"
	}
	if signature == "" && h.Secret != "" {
		signature = SignWebhook(h.Secret, body)
	}
	if signature != "" {
		req.Header.Set(name, signature)
	}
	return req, nil
}

// The platform retries with exponential backoff and does not publish numbers.
// These numbers are assumptions.
const (
	webhookTries = 5
	webhookPause = time.Second
)

// DeliverWebhook sends a webhook to url as the platform does: up to five times,
// with pauses of 1, 2, 4, and 8 s, until the receiver responds with success. The
// platform documents an exponential backoff; the numbers are those of this
// server. Every try has the same body, signature, and time, which is that of the
// server's clock. DeliverWebhook does not follow redirects. If client is nil, it
// uses a client that waits up to 10 s for a response.
//
// It returns the status of each try, 0 for one without a response. The error is
// nil if the last one is a success. It ends early, with an error, when ctx does
// or the server is closed.
func (s *Server) DeliverWebhook(ctx context.Context, client *http.Client, url string, h Webhook) ([]int, error) {
	if !s.enter() {
		return nil, errors.New("agrentingtest: the server is closed")
	}
	defer s.inflight.Done()
	body, err := h.body(s.now())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // Close waits for the delivery, so the delivery must end
		select {
		case <-s.alive.Done():
			cancel()
		case <-ctx.Done():
		}
	}()

	if client == nil {
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		client = deliveryClient(transport)
	} else {
		own := *client
		own.CheckRedirect = noRedirects
		client = &own
	}
	return s.deliver(ctx, client, func(ctx context.Context) (*http.Request, error) {
		req, err := h.request(ctx, url, body)
		if err != nil {
			return nil, fmt.Errorf("agrentingtest: the webhook cannot be sent: %w", err)
		}
		return req, nil
	})
}
