package agrentingtest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// receiver is an agent's end of webhooks, without a network.
type receiver struct {
	answers []int // of the tries; 0 breaks the connection, the last one is repeated
	bodies  []string
	headers []http.Header
	at      []time.Time
}

func (r *receiver) RoundTrip(req *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	r.bodies, r.headers, r.at = append(r.bodies, string(b)), append(r.headers, req.Header), append(r.at, time.Now())
	status := r.answers[min(len(r.bodies), len(r.answers))-1]
	if status == 0 {
		return nil, errors.New("connection reset")
	}
	return &http.Response{
		StatusCode: status, Header: http.Header{"Location": {"https://elsewhere.test/"}}, Body: io.NopCloser(strings.NewReader("x")), Request: req,
	}, nil
}

const hookURL = "https://agent.test/hook"

func TestAWebhookIsSentAgainUntilItSucceeds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers, want []int
		took          time.Duration
		fails         string
	}{
		"at once":            {[]int{204}, []int{204}, 0, ""},
		"after two failures": {[]int{500, 0, 200}, []int{500, 0, 200}, 3 * time.Second, ""},
		"never":              {[]int{503}, []int{503, 503, 503, 503, 503}, 15 * time.Second, "responded with 503"},
		"never reached":      {[]int{0}, []int{0, 0, 0, 0, 0}, 15 * time.Second, "connection reset"},
		"a redirect":         {[]int{307}, []int{307, 307, 307, 307, 307}, 15 * time.Second, "responded with 307"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				srv := newServer(t)
				r := &receiver{answers: c.answers}
				begin := time.Now()
				statuses, err := srv.DeliverWebhook(t.Context(), &http.Client{Transport: r}, hookURL, agrentingtest.Webhook{
					Event: "task.completed", TaskID: "t-1", Status: "completed", Output: []int{1}, Secret: "whsec-not-a-real-one",
				})
				if c.fails == "" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, c.fails)
				}
				assert.Equal(t, c.want, statuses)
				assert.Equal(t, c.took, time.Since(begin))
				for i, body := range r.bodies {
					assert.Equal(t, r.bodies[0], body)
					assert.Equal(t, agrentingtest.SignWebhook("whsec-not-a-real-one", []byte(body)), r.headers[i].Get("X-Webhook-Signature"))
					assert.Equal(t, "task.completed", r.headers[i].Get("X-Webhook-Event"))
					assert.Equal(t, "t-1", r.headers[i].Get("X-Webhook-Task-Id"))
				}
				assert.JSONEq(t, `{"task_id":"t-1","status":"completed","output":[1],"created_at":"`+begin.UTC().Format(time.RFC3339)+`"}`, r.bodies[0])
			})
		})
	}
}

func TestDeliveryDoesNotWaitForResponseBody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := newServer(t)
		began := time.Now()
		body, _ := io.Pipe()
		statuses, err := srv.DeliverWebhook(t.Context(), &http.Client{Transport: stalling{body}}, hookURL, agrentingtest.Webhook{})
		require.NoError(t, err)
		assert.Equal(t, []int{200}, statuses)
		assert.Less(t, time.Since(began), time.Second)
	})
}

// stalling responds with a body that never comes.
type stalling struct{ body io.ReadCloser }

func (s stalling) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: s.body, Request: req}, nil
}

func TestDeliveryEndsWithContextOrServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := newServer(t)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		statuses, err := srv.DeliverWebhook(ctx, &http.Client{Transport: &receiver{answers: []int{500}}}, hookURL, agrentingtest.Webhook{})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, []int{500, 500}, statuses)

		begin, closed := time.Now(), make(chan struct{})
		go func() {
			defer close(closed)
			<-time.After(time.Second / 2)
			srv.Close()
		}()
		_, err = srv.DeliverWebhook(t.Context(), &http.Client{Transport: &receiver{answers: []int{500}}}, hookURL, agrentingtest.Webhook{})
		require.ErrorIs(t, err, context.Canceled)
		<-closed
		assert.Equal(t, time.Second/2, time.Since(begin))
		_, err = srv.DeliverWebhook(t.Context(), nil, hookURL, agrentingtest.Webhook{})
		require.ErrorContains(t, err, "closed")
	})
}

func TestAWebhookCanBeWrongInEveryWay(t *testing.T) {
	t.Parallel()
	header := func(h agrentingtest.Webhook) http.Header {
		req, err := h.Request(t.Context(), hookURL)
		require.NoError(t, err)
		return req.Header
	}
	assert.NotContains(t, header(agrentingtest.Webhook{Body: []byte("{}")}), "X-Webhook-Signature")
	assert.NotContains(t, header(agrentingtest.Webhook{}), "X-Webhook-Event")
	assert.Equal(t, []string{"forged"}, header(agrentingtest.Webhook{Secret: "s", Signature: "forged"})["X-Webhook-Signature"])
	assert.Contains(t, header(agrentingtest.Webhook{Secret: "s", Header: "X-Other"}), "X-Other")
	req, err := agrentingtest.Webhook{Body: []byte("not JSON"), ErrorReason: "unused", Secret: "s"}.Request(t.Context(), hookURL)
	require.NoError(t, err)
	b, err := io.ReadAll(req.Body)
	require.NoError(t, err)
	assert.Equal(t, "not JSON", string(b))
	req, err = agrentingtest.Webhook{ErrorReason: "no time"}.Request(t.Context(), hookURL)
	require.NoError(t, err)
	b, err = io.ReadAll(req.Body)
	require.NoError(t, err)
	assert.Contains(t, string(b), `"error_reason":"no time"`)

	_, err = agrentingtest.Webhook{Output: make(chan int)}.Request(t.Context(), hookURL)
	require.ErrorContains(t, err, "does not encode")
	srv := newServer(t)
	_, err = srv.DeliverWebhook(t.Context(), nil, "://", agrentingtest.Webhook{})
	require.ErrorContains(t, err, "cannot be sent")
	_, err = srv.DeliverWebhook(t.Context(), nil, hookURL, agrentingtest.Webhook{Output: make(chan int)})
	require.ErrorContains(t, err, "does not encode")
}
