// Command record draws what a program has written to a terminal, colours
// included, as an SVG that shows it step by step:
//
//	script -qec 'go run ./examples/quickstart' /dev/null |
//		go run ./docs/record -command 'go run ./examples/quickstart' > docs/img/quickstart.svg
package main

import (
	"bufio"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"
)

func main() {
	command := flag.String("command", "", "what is shown as typed")
	flag.Parse()
	out := bufio.NewWriter(os.Stdout)
	err := record(os.Stdin, out, *command)
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
}

// span is a piece of a line in one style.
type span struct {
	class string // of the style sheet below; empty is plain
	text  string
}

// classes are the styles that examples use, by their codes of ECMA-48.
var classes = map[string]string{"": "", "0": "", "1": "b", "2": "d", "32": "g", "36": "c"}

var escape = regexp.MustCompile("\x1b\\[([0-9;]*)m")

// parse splits a line at its escape sequences.
func parse(line string) ([]span, error) {
	var spans []span
	class := ""
	add := func(text string) {
		if text != "" {
			spans = append(spans, span{class, text})
		}
	}
	for {
		at := escape.FindStringSubmatchIndex(line)
		if at == nil {
			add(line)
			return spans, nil
		}
		add(line[:at[0]])
		code := line[at[2]:at[3]]
		next, known := classes[code]
		if !known {
			return nil, fmt.Errorf("no style for the code %q", code)
		}
		class, line = next, line[at[1]:]
	}
}

// Sizes in pixels, times in seconds.
const (
	fontSize   = 13.0
	advance    = 7.83 // of one character
	lineHeight = 19.0
	margin     = 20.0
	bar        = 34.0
	perLine    = 0.09
	perStep    = 0.55
)

const style = `
    .win { fill: #0d1117; stroke: #30363d; }
    .bar { fill: #161b22; }
    text { fill: #e6edf3; font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; white-space: pre; }
    .b { font-weight: 700; fill: #ffffff; }
    .d { fill: #9198a1; }
    .g { fill: #56d364; font-weight: 700; }
    .c { fill: #79c0ff; }
    .t { fill: #9198a1; font: 12px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; }
    @media (prefers-reduced-motion: no-preference) {
      .l { animation: show .12s linear backwards; }
      @keyframes show { from { opacity: 0; } to { opacity: 1; } }
    }
  `

// record reads the output of a terminal and writes the picture. Without
// animation, and when it is over, all lines are there.
func record(in io.Reader, out io.Writer, command string) error {
	var lines [][]span
	widest := 0
	if command != "" {
		lines = append(lines, []span{{"g", "$ "}, {"b", command}}, nil)
	}
	scan := bufio.NewScanner(in)
	for scan.Scan() {
		line := strings.TrimRight(scan.Text(), "\r")
		spans, err := parse(line)
		if err != nil {
			return err
		}
		lines = append(lines, spans)
		widest = max(widest, utf8.RuneCountInString(escape.ReplaceAllString(line, "")))
	}
	if err := scan.Err(); err != nil {
		return err
	}
	width, height := 2*margin+advance*float64(widest), bar+2*margin+lineHeight*float64(len(lines))-6
	p := &printer{out: out}
	p.line(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img" aria-label="the output of %s">`,
		width, height, width, height, quoted(command))
	p.line("  <style>%s</style>", style)
	p.line(`  <rect class="win" x="0.5" y="0.5" width="%.0f" height="%.0f" rx="9"/>`, width-1, height-1)
	p.line(`  <path class="bar" d="M1 %.0fV9.5a8.5 8.5 0 0 1 8.5-8.5h%.0fa8.5 8.5 0 0 1 8.5 8.5V%.0fz"/>`, bar, width-19, bar)
	for i, colour := range []string{"#ff5f57", "#febc2e", "#28c840"} {
		p.line(`  <circle cx="%d" cy="17" r="5.5" fill="%s"/>`, 20+20*i, colour)
	}
	p.line(`  <text class="t" x="%.0f" y="21" text-anchor="middle">agrenting-go</text>`, width/2)
	at := 0.4
	for i, spans := range lines {
		if len(spans) == 0 {
			at += perStep
			continue
		}
		at += perLine
		p.spans(spans, bar+margin+lineHeight*float64(i)+fontSize-3, at)
	}
	p.line("</svg>")
	return p.err
}

// printer writes until something fails.
type printer struct {
	out io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.out, format+"\n", args...)
	}
}

// spans writes one line of the terminal. Each piece is put where its column is,
// so that columns hold whatever font is there.
func (p *printer) spans(spans []span, y, at float64) {
	var b strings.Builder
	column := 0
	for _, s := range spans {
		class := ""
		if s.class != "" {
			class = fmt.Sprintf(` class=%q`, s.class)
		}
		n := utf8.RuneCountInString(s.text)
		fmt.Fprintf(&b, `<tspan%s x="%.1f" textLength="%.1f" lengthAdjust="spacing">%s</tspan>`,
			class, margin+advance*float64(column), advance*float64(n), quoted(s.text))
		column += n
	}
	p.line(`  <text class="l" style="animation-delay:%.2fs" y="%.1f" xml:space="preserve">%s</text>`, at, y, b.String())
}

func quoted(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a Builder takes everything
	return b.String()
}
