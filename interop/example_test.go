package interop_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"

	"connectrpc.com/connect"
	coder "github.com/coder/websocket"
	"github.com/go-resty/resty/v2"
	gorilla "github.com/gorilla/websocket"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/interop/internal/platformapi"
)

// must keeps examples short; programs look at their errors.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// place is an embedded platform, a service that trusts its credentials, and a
// client for both.
type place struct {
	*agrenting.Client
	platform *agrentingtest.Server
	service  *httptest.Server
	roots    *x509.CertPool
}

func newPlace(h http.Handler, opts ...agrenting.Option) *place {
	p := &place{platform: agrentingtest.NewServer(), roots: x509.NewCertPool()}
	p.service = httptest.NewUnstartedServer(p.platform.Guard(h))
	p.service.EnableHTTP2 = true
	p.service.StartTLS()
	p.roots.AddCert(p.service.Certificate())
	agent := p.platform.NewAgent(p.platform.NewUser("Ada"), agrentingtest.AgentConfig{Name: "Scribe"})
	client, err := agrenting.New(append([]agrenting.Option{
		agrenting.WithoutEnvironment(),
		agrenting.WithBaseURL(p.platform.URL),
		agrenting.WithAllowedOrigins(p.service.URL),
		agrenting.WithTransport(p.service.Client().Transport),
		agrenting.WithCredential(agrenting.APIKey(p.platform.NewKey(agent.ID).Secret)),
		agrenting.WithSession(),
	}, opts...)...)
	must(err)
	p.Client = client
	return p
}

func (p *place) close() {
	must(p.Close())
	p.service.CloseClientConnections()
	p.service.Close()
	p.platform.Close()
}

// echo responds with what it was sent, and with who sent it.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	must(err)
	who, _ := agrentingtest.PrincipalFrom(r.Context())
	_, _ = fmt.Fprintf(w, "%s, by %s", body, who.Kind)
}

// The streamable transport of the MCP SDK.
func Example_mcp() {
	server := mcp.NewServer(&mcp.Implementation{Name: "service", Version: "1.0"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "echo"},
		func(_ context.Context, _ *mcp.CallToolRequest, in echoInput) (*mcp.CallToolResult, echoInput, error) {
			return nil, in, nil
		})
	client := newPlace(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil))
	defer client.close()
	ctx, endpoint := context.Background(), client.service.URL

	transport := &mcp.StreamableClientTransport{Endpoint: endpoint, HTTPClient: client.HTTPClient()}
	session, err := mcp.NewClient(&mcp.Implementation{Name: "my-agent", Version: "1.0"}, nil).Connect(ctx, transport, nil)
	must(err)
	defer session.Close()

	result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "echo", Arguments: map[string]any{"Text": "hello"}})
	must(err)
	fmt.Println(result.StructuredContent)
	// Output: map[Text:hello]
}

// The older transport of the MCP SDK.
func Example_mcpSSE() {
	server := mcp.NewServer(&mcp.Implementation{Name: "service", Version: "1.0"}, nil)
	client := newPlace(mcp.NewSSEHandler(func(*http.Request) *mcp.Server { return server }, nil))
	defer client.close()
	ctx, endpoint := context.Background(), client.service.URL

	transport := &mcp.SSEClientTransport{Endpoint: endpoint, HTTPClient: client.HTTPClient()}
	session, err := mcp.NewClient(&mcp.Implementation{Name: "my-agent", Version: "1.0"}, nil).Connect(ctx, transport, nil)
	must(err)
	defer session.Close()

	fmt.Println(session.Ping(ctx, nil))
	// Output: <nil>
}

// A WebSocket of coder/websocket.
func Example_coderWebSocket() {
	client := newPlace(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := coder.Accept(w, r, nil)
		must(err)
		must(conn.Write(r.Context(), coder.MessageText, []byte("welcome")))
		_, _, _ = conn.Read(r.Context()) // until the other side goes
	}))
	defer client.close()
	ctx, address := context.Background(), webSocketURL(client.service.URL)

	//nolint:bodyclose // the body of a handshake is the connection
	conn, _, err := coder.Dial(ctx, address, &coder.DialOptions{HTTPClient: client.HTTPClient()})
	must(err)
	defer func() { _ = conn.CloseNow() }()

	_, message, err := conn.Read(ctx)
	must(err)
	fmt.Println(string(message))
	// Output: welcome
}

// A WebSocket of gorilla/websocket, which knows no http.Client.
func Example_gorillaWebSocket() {
	upgrader := gorilla.Upgrader{}
	client := newPlace(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		must(conn.WriteMessage(gorilla.TextMessage, []byte("welcome")))
	}))
	defer client.close()
	ctx, address := context.Background(), webSocketURL(client.service.URL)
	dialer := &gorilla.Dialer{TLSClientConfig: &tls.Config{RootCAs: client.roots, MinVersion: tls.VersionTLS12}}

	_, err := client.Credential(ctx) // obtains a session
	must(err)
	client.platform.RevokeSessions() // ends it without notice

	//nolint:bodyclose // the body of a handshake is the connection
	conn, _, err := dialGorilla(ctx, dialer, client.Client, address)
	must(err)
	defer conn.Close()

	_, message, err := conn.ReadMessage()
	must(err)
	fmt.Println(string(message))
	// Output: welcome
}

// A client that oapi-codegen made of api/openapi.yaml.
func Example_generated() {
	client := newPlace(http.HandlerFunc(echo))
	defer client.close()
	ctx, baseURL := context.Background(), client.platform.URL
	scout := client.platform.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scout"})

	api, err := platformapi.NewClientWithResponses(baseURL, platformapi.WithHTTPClient(client.HTTPClient()))
	must(err)

	task := platformapi.CreateTaskJSONRequestBody{ProviderAgentId: &scout.ID, Capability: new("search")}
	answer, err := api.CreateTaskWithResponse(ctx, nil, task)
	must(err)
	fmt.Println(answer.Status(), *answer.JSON201.Data.Status)
	// Output: 201 Created pending
}

// A resty client.
func Example_resty() {
	client := newPlace(http.HandlerFunc(echo))
	defer client.close()
	address := client.service.URL

	rest := resty.NewWithClient(client.HTTPClient())
	answer, err := rest.R().SetBody("hello").Post(address)
	must(err)
	fmt.Println(answer)
	// Output: hello, by session
}

// A connect client. Streams are replayed only while nothing of them was sent.
func Example_connect() {
	client := newPlace(connectServer())
	defer client.close()
	ctx, baseURL := context.Background(), client.service.URL

	say := connect.NewClient[wrapperspb.StringValue, wrapperspb.StringValue](
		client.HTTPClient(), baseURL+"/interop.v1.Echo/Say",
		connect.WithInterceptors(expectContinue{}),
	)
	answer, err := say.CallUnary(ctx, connect.NewRequest(wrapperspb.String("hello")))
	must(err)
	fmt.Println(answer.Msg.GetValue())
	// Output: hello
}

// A connection of grpc-go, which has its own HTTP/2.
func Example_grpc() {
	client := newPlace(grpcServer())
	defer client.close()
	ctx, address := context.Background(), strings.TrimPrefix(client.service.URL, "https://")
	tlsConfig := credentials.NewClientTLSFromCert(client.roots, "")

	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(tlsConfig),
		grpc.WithPerRPCCredentials(perCall{client.Client}),
		grpc.WithUnaryInterceptor(retryUnauthenticated),
	)
	must(err)
	defer conn.Close()

	answer := new(wrapperspb.StringValue)
	must(conn.Invoke(ctx, "/interop.v1.Echo/Say", wrapperspb.String("hello"), answer))
	fmt.Println(answer.GetValue())
	// Output: hello
}

// Above the SDK there is one span for each request, whatever it took.
func Example_otelAbove() {
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	client := newPlace(http.HandlerFunc(echo))
	defer client.close()
	address := client.service.URL

	traced := &http.Client{Transport: otelhttp.NewTransport(client.Transport(), otelhttp.WithTracerProvider(provider))}
	answer, err := traced.Post(address, "text/plain", strings.NewReader("hello"))
	must(err)
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	must(err)
	fmt.Println(len(recorder.Ended()), "span")
	// Output: 1 span
}

// Below it there is one for each attempt and for the SDK's own calls.
func Example_otelBelow() {
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	platform := agrentingtest.NewServer()
	defer platform.Close()
	agent := platform.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"})
	key := agrenting.APIKey(platform.NewKey(agent.ID).Secret)
	base := platform.Transport()

	below := agrenting.WithTransport(otelhttp.NewTransport(base, otelhttp.WithTracerProvider(provider))) // an option of New
	client, err := agrenting.New(
		below, agrenting.WithoutEnvironment(),
		agrenting.WithBaseURL(platform.URL), agrenting.WithCredential(key), agrenting.WithSession(),
	)
	must(err)
	defer client.Close()
	_, err = client.Do(context.Background(), http.MethodGet, "/api/v1/tasks", nil, nil)
	must(err)
	fmt.Println(len(recorder.Ended()), "spans")
	// Output: 2 spans
}

// A reverse proxy whose callers need no credential.
func Example_reverseProxy() {
	client := newPlace(http.HandlerFunc(echo))
	defer client.close()
	target, err := url.Parse(client.service.URL)
	must(err)

	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Transport: client.Transport(),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			if r.Out.ContentLength != 0 {
				// The server accepts the credential before the body is sent.
				r.Out.Header.Set("Expect", "100-continue")
			}
		},
	})
	defer proxy.Close()

	answer, err := proxy.Client().Post(proxy.URL, "text/plain", strings.NewReader("hello"))
	must(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	must(err)
	fmt.Println(string(body))
	// Output: hello, by session
}
