// Package api holds the description of the platform's HTTP API in the form of
// OpenAPI 3.1, as far as this SDK covers it. Client generators for other
// languages, validators, and gateways can read it. The embedded platform
// ([github.com/agrenting/agrenting-go/agrentingtest]) serves it at
// /api/v1/openapi.json. The section webhooks describes what the platform sends,
// such as a hiring to its agent.
//
// The document was written from the platform's public documentation and its
// official clients. It states what is assumed where they do not say, and which
// versions exist where they disagree. Tests compare the document with the
// embedded platform: the routes in both directions, and each response.
package api

import _ "embed"

//go:embed openapi.json
var document string

//go:embed openapi.yaml
var source string

// JSON returns the document as JSON. The caller may change the returned slice.
func JSON() []byte { return []byte(document) }

// YAML returns the document as it was written, with its comments. The caller may
// change the returned slice.
func YAML() []byte { return []byte(source) }
