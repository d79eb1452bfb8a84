package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// The bill of materials is CycloneDX 1.5 in JSON. It is read off the program
// itself, so that it lists what was linked and nothing else.
type (
	bill struct {
		Format     string      `json:"bomFormat"`
		Spec       string      `json:"specVersion"`
		Serial     string      `json:"serialNumber"`
		Version    int         `json:"version"`
		Metadata   metadata    `json:"metadata"`
		Components []component `json:"components"`
	}
	metadata struct {
		Timestamp string    `json:"timestamp"`
		Component component `json:"component"`
	}
	component struct {
		Type       string     `json:"type"`
		Ref        string     `json:"bom-ref"`
		Name       string     `json:"name"`
		Version    string     `json:"version"`
		Scope      string     `json:"scope,omitempty"`
		Hashes     []hash     `json:"hashes,omitempty"`
		URL        string     `json:"purl"`
		Properties []property `json:"properties,omitempty"`
	}
	hash struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
)

// billOf reads what a program was built from. Modules of this repository are of
// the version that is released.
func billOf(binary, version string, at time.Time) ([]byte, error) {
	content, err := os.ReadFile(binary) // #nosec G304 -- a file of this project
	if err != nil {
		return nil, err
	}
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(content)
	library := func(path, version, checksum string) component {
		url := "pkg:golang/" + strings.ToLower(path) + "@" + strings.ReplaceAll(version, "+", "%2B")
		c := component{Type: "library", Ref: url, Name: path, Version: version, Scope: "required", URL: url}
		if checksum != "" {
			c.Properties = []property{{Name: "go:checksum", Value: checksum}}
		}
		return c
	}
	main := library(info.Main.Path, version, "")
	main.Type, main.Scope = "application", ""
	main.Hashes = []hash{{Algorithm: "SHA-256", Content: fmt.Sprintf("%x", sum)}}
	for _, s := range info.Settings {
		switch s.Key {
		case "GOOS", "GOARCH", "CGO_ENABLED":
			main.Properties = append(main.Properties, property{Name: "go:" + s.Key, Value: s.Value})
		}
	}
	b := bill{
		Format: "CycloneDX", Spec: "1.5", Version: 1,
		// Of the program's checksum, so that the same program has the same one.
		Serial:   "urn:uuid:" + uuidOf(sum),
		Metadata: metadata{Timestamp: at.Format(time.RFC3339), Component: main},
	}
	b.Components = append(b.Components, library("std", strings.TrimPrefix(info.GoVersion, "go"), ""))
	for _, d := range info.Deps {
		if d.Replace != nil {
			return nil, fmt.Errorf("%s is replaced by %s, which users do not get", d.Path, d.Replace.Path)
		}
		if d.Path == module || strings.HasPrefix(d.Path, module+"/") {
			b.Components = append(b.Components, library(d.Path, version, ""))
			continue
		}
		b.Components = append(b.Components, library(d.Path, d.Version, d.Sum))
	}
	out, err := json.MarshalIndent(b, "", "  ")
	return append(out, '\n'), err
}

// uuidOf is a UUID of version 8, which is for contents of one's own.
func uuidOf(sum [sha256.Size]byte) string {
	sum[6] = sum[6]&0x0f | 0x80
	sum[8] = sum[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}
