package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/agrenting/agrenting-go"
)

// printer prints the steps, in color if the output supports it.
type printer struct {
	out    io.Writer
	colour bool
	step   int
}

func newPrinter(out io.Writer, lookupEnv lookupFunc) *printer {
	p := &printer{out: out}
	if f, ok := out.(*os.File); ok {
		info, err := f.Stat()
		plain, _ := lookupEnv("NO_COLOR")
		term, _ := lookupEnv("TERM")
		p.colour = err == nil && info.Mode()&os.ModeCharDevice != 0 && plain == "" && term != "dumb"
	}
	return p
}

const (
	bold  = "1"
	dim   = "2"
	green = "32"
	cyan  = "36"
)

func (p *printer) paint(code, text string) string {
	if !p.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p *printer) line(format string, args ...any) { fmt.Fprintf(p.out, format+"\n", args...) }

// begin starts a step.
func (p *printer) begin(title string) {
	p.step++
	p.line("\n%s  %s", p.paint(green, strconv.Itoa(p.step)), p.paint(bold, title))
}

// sent prints a request and its credential.
func (p *printer) sent(method, path string, h http.Header) {
	p.line("   %s %-4s %-29s %s", p.paint(cyan, "->"), method, shortened(path), identity(h))
}

// back prints a response.
func (p *printer) back(status int, format string, args ...any) {
	p.line("   %s %-4d %s", p.paint(cyan, "<-"), status, fmt.Sprintf(format, args...))
}

// note prints an explanation.
func (p *printer) note(format string, args ...any) {
	p.line("      %s", p.paint(dim, fmt.Sprintf(format, args...)))
}

// identity describes the credential of a request, with secrets as fingerprints.
func identity(h http.Header) string {
	var parts []string
	for _, name := range []string{"X-API-Key", "Api-Key"} {
		for _, value := range h.Values(name) {
			parts = append(parts, name+": "+fingerprint(value))
		}
	}
	for _, value := range h.Values("Authorization") {
		scheme, secret, _ := strings.Cut(value, " ")
		parts = append(parts, "Authorization: "+scheme+" "+fingerprint(secret))
	}
	for _, value := range h.Values("X-Agent-ID") {
		parts = append(parts, "X-Agent-ID: "+shortened(value))
	}
	if len(parts) == 0 {
		return "no credential"
	}
	return strings.Join(parts, "  ")
}

func fingerprint(secret string) string { return agrenting.APIKey(secret).Fingerprint() }

// shortened cuts the UUIDs in a text to their first characters.
func shortened(text string) string {
	parts := strings.Split(text, "/")
	for i, s := range parts {
		if len(s) == 36 && strings.Count(s, "-") == 4 {
			parts[i] = s[:8] + "…"
		}
	}
	return strings.Join(parts, "/")
}
