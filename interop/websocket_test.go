package interop_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
)

// webSocketURL is the address of a server for WebSocket clients.
func webSocketURL(base string) string { return "wss" + strings.TrimPrefix(base, "https") }

// coderWebSocket dials a socket for each exchange, and holds one open.
func coderWebSocket(w *world) contact {
	url := w.serve(w.guard(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		conn, err := coder.Accept(out, r, nil)
		if err != nil {
			return // Accept has responded
		}
		defer func() { _ = conn.CloseNow() }()
		for {
			kind, message, err := conn.Read(r.Context())
			if err != nil || conn.Write(r.Context(), kind, message) != nil {
				return
			}
		}
	})))
	client := w.client()
	dial := func(ctx context.Context) (*coder.Conn, error) {
		//nolint:bodyclose // the body of a handshake is the connection
		conn, _, err := coder.Dial(ctx, webSocketURL(url), &coder.DialOptions{HTTPClient: client.HTTPClient()})
		return conn, err
	}
	echo := func(ctx context.Context, conn *coder.Conn, text string) error {
		if err := conn.Write(ctx, coder.MessageText, []byte(text)); err != nil {
			return err
		}
		_, message, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		return echoed(text, string(message))
	}
	old, err := dial(w.t.Context())
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = old.CloseNow() })
	return contact{
		exchange: func(ctx context.Context, n int) error {
			conn, err := dial(ctx)
			if err != nil {
				return err
			}
			defer func() { _ = conn.CloseNow() }()
			return echo(ctx, conn, fmt.Sprint("message ", n))
		},
		alive: func(ctx context.Context) error { return echo(ctx, old, "still there?") },
	}
}

// dialGorilla opens a WebSocket with a dialer that knows no http.Client.
func dialGorilla(ctx context.Context, d *gorilla.Dialer, c *agrenting.Client, url string) (*gorilla.Conn, *http.Response, error) {
	auth, err := c.Authorize(ctx, url)
	for err == nil {
		conn, resp, dialErr := d.DialContext(ctx, url, auth.Header())
		if dialErr == nil || resp == nil || resp.StatusCode != http.StatusUnauthorized {
			return conn, resp, dialErr
		}
		auth, err = auth.Rejected(ctx)
	}
	return nil, nil, err
}

// gorillaEcho is the server for both ways to use gorilla/websocket.
func gorillaEcho(w *world) string {
	upgrader := gorilla.Upgrader{}
	return webSocketURL(w.serve(w.guard(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(out, r, nil)
		if err != nil {
			return // Upgrade has responded
		}
		defer conn.Close()
		for {
			kind, message, err := conn.ReadMessage()
			if err != nil || conn.WriteMessage(kind, message) != nil {
				return
			}
		}
	}))))
}

// gorillaContact dials a socket for each exchange, and holds one open.
func gorillaContact(w *world, dial func(context.Context) (*gorilla.Conn, *http.Response, error)) contact {
	echo := func(conn *gorilla.Conn, text string) error {
		if err := conn.WriteMessage(gorilla.TextMessage, []byte(text)); err != nil {
			return err
		}
		_, message, err := conn.ReadMessage()
		if err != nil {
			return err
		}
		return echoed(text, string(message))
	}
	old, _, err := dial(w.t.Context()) //nolint:bodyclose // the body of a handshake is the connection
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = old.Close() })
	var one sync.Mutex // a connection of gorilla has one reader and one writer
	return contact{
		exchange: func(ctx context.Context, n int) error {
			conn, _, err := dial(ctx) //nolint:bodyclose // the body of a handshake is the connection
			if err != nil {
				return err
			}
			defer conn.Close()
			return echo(conn, fmt.Sprint("message ", n))
		},
		alive: func(context.Context) error {
			one.Lock()
			defer one.Unlock()
			return echo(old, "still there?")
		},
	}
}

func gorillaWebSocket(w *world) contact {
	url := gorillaEcho(w)
	client := w.client()
	dialer := &gorilla.Dialer{NetDialContext: w.dial, TLSClientConfig: w.base().TLSClientConfig}
	return gorillaContact(w, func(ctx context.Context) (*gorilla.Conn, *http.Response, error) {
		return dialGorilla(ctx, dialer, client, url)
	})
}
