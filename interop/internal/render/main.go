// Command render writes an OpenAPI document in YAML as JSON:
//
//	render IN.yaml OUT.json
//
// Members come out in the order of their names, so that the result depends on
// nothing but the input.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"go.yaml.in/yaml/v3"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: render IN.yaml OUT.json")
		os.Exit(2)
	}
	if err := render(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

func render(from, to string) error {
	in, err := os.ReadFile(from) // #nosec G304 G703 -- the user's own choice
	if err != nil {
		return err
	}
	var doc any
	if err := yaml.Unmarshal(in, &doc); err != nil {
		return err
	}
	out, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err // such as a member whose name is not a string
	}
	return os.WriteFile(to, append(out, '\n'), 0o644) // #nosec G306 G703 -- a document to be read, and the user's own choice
}
