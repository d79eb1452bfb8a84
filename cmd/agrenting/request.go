package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/proxy"
)

type requestCmd struct {
	secretFlags

	Method   string   `arg:"" help:"The method, such as GET."`
	Path     string   `arg:"" help:"The path, such as /api/v1/agents; it may have a query string."`
	Field    []string `short:"f" sep:"none" placeholder:"KEY=VALUE" help:"A text field of the JSON body (or of the query, with GET, HEAD and DELETE); a[b]=c nests, a[]=c appends."`
	Typed    []string `short:"F" sep:"none" name:"typed" placeholder:"KEY=VALUE" help:"The same with true, false, null, numbers and JSON taken as such, and @FILE as the text of a file (@- of standard input)."`
	Input    string   `placeholder:"FILE" help:"The body; - reads standard input."`
	Header   []string `short:"H" sep:"none" placeholder:"NAME:VALUE" help:"A header. Credentials are refused here: command lines are seen by others."`
	Paginate bool     `help:"Read all pages and print their items as one array; with GET only, without -i/--include, --raw and --out."`
	Include  bool     `short:"i" help:"Print status and headers first."`
	Raw      bool     `help:"Print the body as it came instead of its data."`
}

// Run makes a call.
func (c *requestCmd) Run(a *app) error {
	method := strings.ToUpper(c.Method)
	body, query, err := c.body(a, method)
	if err != nil {
		return err
	}
	opts, err := c.headers()
	if err != nil {
		return err
	}
	if len(query) > 0 {
		opts = append(opts, agrenting.CallQuery(query))
	}
	path, _, _ := strings.Cut(c.Path, "?")
	s, err := c.open(proxy.Issues(method, path))
	if err != nil {
		return err
	}
	defer s.close()
	client, err := a.clientOrAnonymous()
	if err != nil {
		return err
	}
	defer client.Close()
	stop := a.waiting("waiting for %s %s", method, path)
	defer stop()
	if c.Paginate {
		return c.pages(a, client, method, opts)
	}
	var raw bytes.Buffer
	var data json.RawMessage
	var into any = &data
	if c.Raw {
		into = &raw
	}
	resp, err := client.Do(a.ctx, method, c.Path, body, into, opts...)
	if resp != nil && c.Include && !a.JSON {
		head(a.out, resp)
	}
	if err != nil {
		return err
	}
	if c.Raw {
		data = raw.Bytes()
	}
	if c.Out != "" {
		return s.put(string(data))
	}
	return c.show(a, client, resp, data)
}

// lost is for an answer with a new secret in it.
func (c *requestCmd) lost() (msg, hint string) {
	path, _, _ := strings.Cut(c.Path, "?")
	if !proxy.Issues(strings.ToUpper(c.Method), path) {
		return "", ""
	}
	return "the platform has answered, and the secret in its answer is lost",
		hintLost
}

// show prints an answer. The credential of the call is taken out should the
// platform have echoed it.
func (c *requestCmd) show(a *app, client *agrenting.Client, resp *agrenting.Response, data []byte) error {
	if cred, err := client.Credential(a.ctx); err == nil && !cred.IsZero() && !c.Show {
		data = bytes.ReplaceAll(data, []byte(cred.Reveal()), []byte("["+cred.Fingerprint()+"]"))
	}
	switch {
	case c.Raw:
		_, err := a.out.Write(data)
		return err
	case a.JSON:
		j := jsonResponse{
			Status: resp.StatusCode, RequestID: resp.RequestID, Attempts: resp.Attempts,
			Data: json.RawMessage(data), Meta: resp.Meta,
		}
		if len(data) == 0 {
			j.Data = nil
		}
		if c.Include {
			j.Headers = resp.Header
		}
		encode(a.out, j)
	case len(data) > 0 && string(data) != "null":
		var b bytes.Buffer
		if err := json.Indent(&b, data, "", "  "); err != nil {
			return err
		}
		a.ui.line("%s", b.Bytes())
	}
	return nil
}

type jsonResponse struct {
	Status    int             `json:"status"`
	RequestID string          `json:"request_id,omitempty"`
	Attempts  int             `json:"attempts"`
	Headers   http.Header     `json:"headers,omitempty"`
	Data      json.RawMessage `json:"data"`
	Meta      json.RawMessage `json:"meta,omitempty"`
}

func (c *requestCmd) pages(a *app, client *agrenting.Client, method string, opts []agrenting.CallOption) error {
	if method != http.MethodGet || c.Raw || c.Include || c.Out != "" {
		return usage("", "--paginate goes with GET and without -i/--include, --raw and --out")
	}
	items := []json.RawMessage{}
	for item, err := range agrenting.List[json.RawMessage](a.ctx, client, c.Path, opts...) {
		if err != nil {
			return err
		}
		items = append(items, item)
	}
	if a.JSON {
		encode(a.out, map[string]any{"data": items})
		return nil
	}
	encode(a.out, items)
	return nil
}

func head(w io.Writer, resp *agrenting.Response) {
	fmt.Fprintf(w, "%d %s\n", resp.StatusCode, http.StatusText(resp.StatusCode))
	for _, name := range slices.Sorted(maps.Keys(resp.Header)) {
		for _, v := range resp.Header[name] {
			fmt.Fprintf(w, "%s: %s\n", name, visible(v))
		}
	}
	fmt.Fprintln(w)
}

// headers are the call options of -H.
func (c *requestCmd) headers() ([]agrenting.CallOption, error) {
	var opts []agrenting.CallOption
	for _, h := range c.Header {
		name, value, ok := strings.Cut(h, ":")
		name = strings.TrimSpace(name)
		if !ok || name == "" {
			return nil, usage("write -H 'Name: value'", "a header has no colon")
		}
		switch http.CanonicalHeaderKey(name) {
		case "Authorization", "Proxy-Authorization", "X-Api-Key", "Api-Key", "Cookie":
			return nil, usage("give the credential by the environment or --key-file",
				"%s on a command line can be read by every program of this machine", http.CanonicalHeaderKey(name))
		}
		opts = append(opts, agrenting.CallHeader(name, strings.TrimSpace(value)))
	}
	return opts, nil
}

// maxRequestBody bounds what is read of a body, to be able to repeat it.
const maxRequestBody = 64 << 20

// body makes the body or the query of the fields or of --input.
func (c *requestCmd) body(a *app, method string) (body any, query url.Values, err error) {
	fields := len(c.Field)+len(c.Typed) > 0
	if c.Input == "-" && a.KeyFile == "-" {
		return nil, nil, usage("", "standard input is either the credential or the body")
	}
	inQuery := method == http.MethodGet || method == http.MethodHead || method == http.MethodDelete
	if fields && (c.Input != "" || inQuery) {
		query, err = c.query(a)
		if err != nil {
			return nil, nil, err
		}
		fields = false
	}
	switch {
	case c.Input != "":
		b, err := a.read(c.Input)
		return b, query, err
	case fields:
		object, err := c.object(a)
		return object, query, err
	default:
		return nil, query, nil
	}
}

// read reads a file or standard input.
func (a *app) read(name string) ([]byte, error) {
	from := a.in
	if name != "-" {
		f, err := os.Open(name) //nolint:gosec // reading it is what was asked for
		if err != nil {
			return nil, usage("", "cannot read %s: %v", name, cause(err))
		}
		defer f.Close()
		from = f
	}
	b, err := io.ReadAll(io.LimitReader(from, maxRequestBody+1))
	if err != nil {
		return nil, usage("", "cannot read %s: %v", name, cause(err))
	}
	if len(b) > maxRequestBody {
		return nil, usage("", "%s is larger than %d MiB", name, maxRequestBody>>20)
	}
	return b, nil
}

func (c *requestCmd) query(a *app) (url.Values, error) {
	q := url.Values{}
	for _, f := range c.Field {
		k, v, ok := strings.Cut(f, "=")
		if !ok || k == "" {
			return nil, errField
		}
		q.Add(k, v)
	}
	for _, f := range c.Typed {
		k, v, ok := strings.Cut(f, "=")
		if !ok || k == "" {
			return nil, errField
		}
		if file, isFile := strings.CutPrefix(v, "@"); isFile {
			b, err := a.read(file)
			if err != nil {
				return nil, err
			}
			v = string(b)
		}
		q.Add(k, v)
	}
	return q, nil
}

var errField = usage("write it as key=value", "a field has no key or no =")

func (c *requestCmd) object(a *app) (map[string]any, error) {
	root := map[string]any{}
	for _, f := range c.Field {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return nil, errField
		}
		if err := setField(root, k, v); err != nil {
			return nil, err
		}
	}
	for _, f := range c.Typed {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return nil, errField
		}
		value, err := a.typed(v)
		if err != nil {
			return nil, err
		}
		if err := setField(root, k, value); err != nil {
			return nil, err
		}
	}
	return root, nil
}

// typed reads the value of -F.
func (a *app) typed(v string) (any, error) {
	if file, ok := strings.CutPrefix(v, "@"); ok {
		b, err := a.read(file)
		return string(b), err
	}
	if json.Valid([]byte(v)) {
		return json.RawMessage(v), nil
	}
	return v, nil
}

var (
	fieldPath = regexp.MustCompile(`^[^\[\]]+(\[[^\[\]]*\])*$`)
	errShape  = usage("", "a field contradicts an earlier one")
)

// setField puts a value at a path such as a[b][]: members of objects, and [] at
// the end to append to an array.
func setField(root map[string]any, path string, value any) error {
	if !fieldPath.MatchString(path) {
		return errField
	}
	parts := strings.Split(strings.ReplaceAll(path, "]", ""), "[")
	list := len(parts) > 1 && parts[len(parts)-1] == ""
	if list {
		parts = parts[:len(parts)-1]
	}
	if slices.Contains(parts, "") {
		return usage("", "[] stands at the end of a field's key only")
	}
	at := root
	for _, p := range parts[:len(parts)-1] {
		next, ok := at[p].(map[string]any)
		if !ok {
			if at[p] != nil {
				return errShape
			}
			next = map[string]any{}
			at[p] = next
		}
		at = next
	}
	last := parts[len(parts)-1]
	if !list {
		at[last] = value
		return nil
	}
	items, ok := at[last].([]any)
	if !ok && at[last] != nil {
		return errShape
	}
	at[last] = append(items, value)
	return nil
}
