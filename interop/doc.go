// Package interop tests this SDK below other client libraries:
// the official MCP SDK, coder/websocket, gorilla/websocket, a client generated
// by oapi-codegen, resty, connect-go, grpc-go, otelhttp, and
// net/http/httputil.ReverseProxy, each against the server of its project.
//
// It has only tests and examples, and is not imported. Each client
// gets 1,000 exchanges with a server that asks the embedded platform about the
// credential of every request ([github.com/agrenting/agrenting-go/agrentingtest.Server.Guard]),
// while the platform ends all sessions ten times without notice and the key is
// rotated five times, by either strategy. No exchange may fail, streams and
// sockets that were open before must continue, and the number of sessions obtained
// has to stay within one for each that died:
//
//	cd interop && GOWORK=off go test -v -run=Campaign ./...
//
// The transport's contract is tested over HTTP/3, with quic-go below the SDK.
//
// The package also compares the API's description in ../api with a validator, with
// the embedded platform's responses and deliveries, including those in its tests, and
// with the generated code. The folder npm/openapi has linters, types for TypeScript,
// and a validating proxy for it.
//
// docs/clients.md describes how to put the SDK below each of these clients. It shows the
// code of the examples here.
package interop

//go:generate go run ./internal/render ../api/openapi.yaml ../api/openapi.json
//go:generate sh -c "cd internal/platformapi && go tool oapi-codegen -config config.yaml -o platformapi.gen.go ../../../api/openapi.yaml"
