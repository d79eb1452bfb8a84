package main

import (
	"fmt"
	"html"
	"math"
	"strings"
	"time"
)

// bar is one bar of a chart.
type bar struct {
	label string
	value float64
	text  string // the text at its end
	ours  bool
}

// chart is a bar chart. It is readable on a light and on a dark background: its
// colors follow the color scheme that the reader's system prefers.
type chart struct {
	title string
	note  string
	bars  []bar
	log   bool    // the scale is logarithmic and begins at a power of ten below all values
	mark  float64 // draws a line at this value; 0 means no line
}

const style = `<style>
text{font:12px ui-sans-serif,system-ui,sans-serif;fill:#424a53}
.t{font-size:14px;font-weight:600;fill:#1f2328}.n{fill:#656d76;font-size:11px}
.b{fill:#afb8c1}.o{fill:#0969da}.m{stroke:#656d76;stroke-dasharray:3 3}.w{font-weight:600;fill:#1f2328}
@media(prefers-color-scheme:dark){text{fill:#c9d1d9}.t,.w{fill:#f0f6fc}.n{fill:#8b949e}.b{fill:#484f58}.o{fill:#4493f8}.m{stroke:#8b949e}}
</style>
`

// Sizes of a chart in pixels.
const (
	width    = 720
	left     = 210
	right    = 120
	top      = 56
	rowPitch = 24
	thick    = 16
)

func (c *chart) svg() string {
	height := top + rowPitch*len(c.bars) + 12
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n",
		width, height, width, height, html.EscapeString(c.title))
	b.WriteString(style)
	fmt.Fprintf(&b, `<text class="t" x="12" y="22">%s</text>`+"\n", html.EscapeString(c.title))
	fmt.Fprintf(&b, `<text class="n" x="12" y="40">%s</text>`+"\n", html.EscapeString(c.note))
	scale := c.scale()
	for i, r := range c.bars {
		y := top + rowPitch*i
		fill, weight := "b", ""
		if r.ours {
			fill, weight = "o", ` class="w"`
		}
		w := scale(r.value)
		fmt.Fprintf(&b, `<text%s x="%d" y="%d" text-anchor="end">%s</text>`, weight, left-8, y+thick-4, html.EscapeString(r.label))
		fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`, fill, left, y, w, thick)
		fmt.Fprintf(&b, `<text%s x="%.1f" y="%d">%s</text>`+"\n", weight, left+w+6, y+thick-4, html.EscapeString(r.text))
	}
	if c.mark > 0 {
		x := left + scale(c.mark)
		fmt.Fprintf(&b, `<line class="m" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`+"\n", x, top-6, x, height-8)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// scale returns the function that maps values to lengths.
func (c *chart) scale() func(float64) float64 {
	low, high := math.Inf(1), 0.0
	for _, r := range c.bars {
		low, high = min(low, r.value), max(high, r.value)
	}
	const full = width - left - right
	if !c.log {
		return func(v float64) float64 { return max(1, full*v/max(high, math.SmallestNonzeroFloat64)) }
	}
	base := math.Floor(math.Log10(max(low, 1e-9)))
	return func(v float64) float64 {
		return max(1, full*(math.Log10(max(v, 1e-9))-base)/max(math.Log10(high)-base, 1e-9))
	}
}

// charts returns the charts of the document by file name.
func (r *report) charts() map[string]string {
	return map[string]string{
		"bench-transport.svg":  r.ratioChart("Time to add a credential to a request, relative to the floor", "Transport/GET", transportOrder).svg(),
		"bench-call.svg":       r.ratioChart("Time of a whole call, relative to http.Client over the floor", "Call/GET", callOrder).svg(),
		"bench-credential.svg": r.credentialChart().svg(),
		"bench-expiry.svg":     r.expiryChart().svg(),
	}
}

func (r *report) ratioChart(title, group string, order []string) *chart {
	c := &chart{
		title: title, mark: 1,
		note: fmt.Sprintf("GET with six headers over a base that does nothing; GOMAXPROCS %d; 1.00 is the least that http.RoundTripper allows", r.native()),
	}
	for _, who := range order {
		p := point{group, who, r.native()}
		if who == "bare" || !r.get.has(p) {
			continue
		}
		x := r.get.toFloor(p)
		c.bars = append(c.bars, bar{label: labels[who], value: x, text: fmt.Sprintf("%.2f", x), ours: ours(who)})
	}
	return c
}

func (r *report) credentialChart() *chart {
	c := &chart{
		title: "Time to read the cached credential, eight readers at a time",
		note:  "ns at GOMAXPROCS 8 (in parentheses: one reader, at 1); less is better",
	}
	for _, who := range readOrder {
		p := point{"Credential", who, 8}
		if !r.read.has(p) {
			continue
		}
		v := r.read.ns(p)
		c.bars = append(c.bars, bar{
			label: labels[who], value: v, ours: ours(who),
			text: fmt.Sprintf("%.0f (%.0f)", v, r.read.ns(point{"Credential", who, 1})),
		})
	}
	return c
}

func (r *report) expiryChart() *chart {
	c := &chart{
		title: "The slowest call in a thousand while sessions of 1 s expire",
		note:  fmt.Sprintf("p99.9 in ms, %d callers, exchanges of 100 ms; logarithmic", r.stampede.Workers),
		log:   true,
	}
	for _, e := range r.stampede.Expiries {
		v := float64(e.Tally.P999) / float64(time.Millisecond)
		c.bars = append(c.bars, bar{label: e.Name, value: v, text: fmt.Sprintf("%.1f", v), ours: e.Ours})
	}
	return c
}
