package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
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
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/ascii"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/proxy"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/redact"
)

type requestCmd struct {
	secretFlags

	Method   string   `arg:"" help:"The method, such as GET."`
	Path     string   `arg:"" help:"The path, such as /api/v1/agents, or a full URL of the platform; it may have a query string."`
	Field    []string `short:"f" sep:"none" placeholder:"KEY=VALUE" help:"A text field of the JSON body (or of the query, with GET, HEAD, and DELETE); a[b]=c nests, a[]=c appends."`
	Typed    []string `short:"F" sep:"none" name:"typed" placeholder:"KEY=VALUE" help:"Like --field, but true, false, null, numbers, and JSON are not quoted, and @FILE is the text of a file (@- reads standard input)."`
	Input    string   `placeholder:"FILE" help:"The body; - reads standard input."`
	Header   []string `short:"H" sep:"none" placeholder:"NAME:VALUE" help:"A header. Credentials are refused here, because other programs can read command lines."`
	Paginate bool     `help:"Read all pages and print their items as one array; with GET only, without -i/--include, --raw and --out."`
	Include  bool     `short:"i" help:"Print status and headers first."`
	Raw      bool     `help:"Print the unchanged body instead of its data."`
}

// Run makes a call.
func (c *requestCmd) Run(a *app) error {
	method := strings.ToUpper(c.Method)
	if a.filter != nil && c.Out != "" {
		return usage("leave out one of them", "--jq filters what is printed, and --out prints nothing")
	}
	if c.Paginate && (method != http.MethodGet || c.Raw || c.Include || c.Out != "") {
		return usage("", "--paginate requires GET, and cannot be combined with -i/--include, --raw, or --out")
	}
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
	s, err := c.open(c.issues())
	if err != nil {
		return err
	}
	defer s.close()
	if c.issues() {
		a.watched()
	}
	client, err := a.clientOrAnonymous()
	if err != nil {
		return err
	}
	defer client.Close()
	issuing, err := c.issuing(a, client, query, body)
	if err != nil {
		return err
	}
	if issuing != nil {
		opts = append(opts, issuing.option())
	}
	path, _, _ := strings.Cut(c.Path, "?")
	stop := a.waiting("waiting for %s %s", method, path)
	defer stop()
	var sent agrenting.Trace
	ctx, hide := agrenting.ContextWithTrace(a.ctx, &sent), redact.Func(sent.Redact)
	a.hide = hide
	if c.Show {
		hide = func(text string) string { return text }
	}
	if c.Paginate {
		return c.pages(ctx, a, client, opts, hide)
	}
	raw := limited{left: maxShown}
	var data json.RawMessage
	var into any = &data
	switch {
	case issuing != nil: // the witness has the body
	case c.Raw && c.Out != "":
		into = s.file // bodies of any size
	case c.Raw:
		into = &raw
	}
	resp, err := client.Do(ctx, method, c.Path, body, into, opts...)
	if resp != nil {
		hide.Header(resp.Header)
		resp.RequestID, resp.Meta = hide(resp.RequestID), hide.JSON(resp.Meta)
		if c.Include && !a.JSON {
			head(a.out, resp)
		}
	}
	if issuing != nil {
		return c.keep(a, s, issuing, resp, err)
	}
	switch {
	case errors.Is(err, errShown):
		return failure("add --out FILE", "the body is larger than %d MiB, the limit for printing", maxShown>>20)
	case err != nil:
		return err
	case c.Raw && c.Out != "":
		return s.end("")
	case c.Out != "":
		return s.put(string(data))
	case c.Raw && !c.Show && len(raw.body) > 0 && !ascii.EqualFold(cmp.Or(resp.Header.Get("Content-Encoding"), "identity"), "identity"):
		return failure("add --out FILE, or leave out Accept-Encoding", "the body is compressed, so it cannot be searched for the credential")
	case c.Raw:
		return a.printBody(hide.Body(raw.body))
	default:
		return c.show(a, resp, hide.JSON(data))
	}
}

var errNoData = fmt.Errorf("%w: the response has no data", agrenting.ErrMalformedResponse)

// keep keeps the response of a call that issues a secret: its data, or the whole body if that is
// requested or if the secret may be beside the data.
func (c *requestCmd) keep(a *app, s *sink, i *issuing, resp *agrenting.Response, err error) error {
	api, complains := errors.AsType[*agrenting.APIError](err)
	if err != nil && (!complains || api.StatusCode >= http.StatusMultipleChoices) {
		return i.failed(err)
	}
	body := i.witness.response()
	switch {
	case conclusive(body):
	case complains:
		return i.failed(err)
	default:
		return i.failed(a.setAside(s, body, errNoData))
	}
	data, beside := dataOf(body)
	if beside = beside || complains; beside {
		data = body
	}
	text := string(data) + "\n"
	if c.Raw {
		text = string(body)
	}
	var named struct {
		ID string `json:"id"`
	}
	made := "the call was carried out"
	if json.Unmarshal(data, &named) == nil && named.ID != "" {
		made = "the call issued " + visible(named.ID)
	}
	if err := i.keep(s, made, i.undo, text); err != nil {
		return err
	}
	var unprinted error
	switch {
	case c.Out != "":
	case c.Raw:
		unprinted = a.printBody(body)
	default:
		unprinted = c.show(a, resp, data)
	}
	if beside && unprinted == nil {
		return unnamed(err, s.place())
	}
	return unprinted
}

// printBody prints a body unchanged, or through the filter.
func (a *app) printBody(body []byte) error {
	if a.filter != nil {
		return a.filterBody(body)
	}
	_, err := a.out.Write(body)
	return err
}

// maxShown bounds a body that is printed unchanged. It is searched for the credential as a whole,
// which takes about 50 times its size in memory.
const maxShown = 4 << 20

var errShown = errors.New("the body is too large to be printed")

// limited collects a body up to the limit for printing.
type limited struct {
	body []byte
	left int
}

// Write implements [io.Writer].
func (l *limited) Write(b []byte) (int, error) {
	if len(b) > l.left {
		return 0, errShown
	}
	l.body, l.left = append(l.body, b...), l.left-len(b)
	return len(b), nil
}

// issues reports whether the response has a new secret in it. In a full URL, the path of the
// base URL may precede the route.
func (c *requestCmd) issues() bool {
	path, _, _ := strings.Cut(c.Path, "?")
	if u, err := url.Parse(c.Path); err == nil {
		path = u.Path // decoded
	}
	for path != "" {
		if proxy.Issues(strings.ToUpper(c.Method), path) {
			return true
		}
		_, rest, found := strings.Cut(path[1:], "/")
		if !found {
			return false
		}
		path = "/" + rest
	}
	return false
}

// lost returns the error for a response with a new secret that could not be printed.
func (c *requestCmd) lost() (msg, hint string) {
	if !c.issues() {
		return "", ""
	}
	return "the platform has responded, and the secret in its response is lost",
		hintLost
}

// show prints a response from which the credential was removed.
func (c *requestCmd) show(a *app, resp *agrenting.Response, data json.RawMessage) error {
	switch {
	case a.filter != nil && !a.JSON:
		if len(data) == 0 {
			data = json.RawMessage("null")
		}
		a.encode(data)
	case a.JSON:
		j := jsonResponse{
			Status: resp.StatusCode, RequestID: resp.RequestID, Attempts: resp.Attempts,
			Data: data, Meta: resp.Meta,
		}
		if len(data) == 0 {
			j.Data = nil
		}
		if c.Include {
			j.Headers = resp.Header
		}
		a.encode(j)
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

func (c *requestCmd) pages(
	ctx context.Context, a *app, client *agrenting.Client, opts []agrenting.CallOption, hide redact.Func,
) error {
	items := []json.RawMessage{}
	for item, err := range agrenting.List[json.RawMessage](ctx, client, c.Path, opts...) {
		if err != nil {
			return err
		}
		items = append(items, hide.JSON(item)) // hide has the credential of the item's page
	}
	if a.JSON {
		a.encode(map[string]any{"data": items})
		return nil
	}
	a.encode(items)
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

// headers returns the call options of -H.
func (c *requestCmd) headers() ([]agrenting.CallOption, error) {
	var opts []agrenting.CallOption
	for _, h := range c.Header {
		name, value, ok := strings.Cut(h, ":")
		name = strings.TrimSpace(name)
		if !ok || name == "" {
			return nil, usage("", "invalid header (want 'Name: value')")
		}
		if proxy.IsCredentialHeader(name) {
			return nil, usage("pass the credential in the environment or with --key-file",
				"every program on this machine can read %s on a command line", http.CanonicalHeaderKey(name))
		}
		opts = append(opts, agrenting.CallHeader(name, strings.TrimSpace(value)))
	}
	return opts, nil
}

// maxRequestBody bounds a body, which is kept in memory for retries.
const maxRequestBody = 64 << 20

// body returns the body or the query, from the fields or from --input.
func (c *requestCmd) body(a *app, method string) (body any, query url.Values, err error) {
	fields := len(c.Field)+len(c.Typed) > 0
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
	if name == "-" && a.KeyFile == "-" {
		return nil, usage("use a file for one of them", "standard input cannot be both the credential and the body")
	}
	if name == "-" && isTerminal(a.in) {
		a.ui.note("reading the body from standard input; end it with Ctrl-D")
	}
	b, err := untilCanceled(a.ctx, func() ([]byte, error) {
		from := a.in
		if name != "-" {
			f, err := os.Open(name) // #nosec G304 -- reading it is what was asked for
			if err != nil {
				return nil, err
			}
			defer f.Close()
			from = f
		}
		return io.ReadAll(io.LimitReader(from, maxRequestBody+1))
	})
	if a.ctx.Err() != nil {
		return nil, a.ctx.Err()
	}
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

var errField = usage("", "invalid field (want key=value)")

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

// typed converts the value of -F.
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
	errShape  = usage("use one form, such as a[b]=c", "a field is set both as a value and as an object or a list")
)

// setField sets the value at a path such as a[b][]. Names in brackets are members of objects,
// and [] at the end appends to an array.
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
		return usage("", "[] is allowed only at the end of a field's key, as in a[]=c")
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
