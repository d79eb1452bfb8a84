package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/agrenting/agrenting-go/internal/ascii"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// Timeout limits one run of a program. It is shorter than the 30 s that a source may take in total,
// so that its error names the program.
const Timeout = 25 * time.Second

const (
	// maxName bounds the part of a program's name that is shown, in bytes.
	maxName = 256
	// maxOutput bounds what a program may print. It leaves room for a secret of 4096 bytes and
	// other members.
	maxOutput = 64 << 10
	// pipeWait is how long the output of a program is read after the program has ended. A process
	// that the program has left behind may hold the output open.
	pipeWait = time.Second
)

// secretVariables are variables that may contain a credential of the platform. The program does not
// inherit them: a program that yields a credential does not need another one.
var secretVariables = []string{"AGRENTING_API_KEY", "AGRENTING_SANDBOX_API_KEY", "AGRENTING_SESSION_TOKEN"} // #nosec G101 -- names

// A Command is a program that prints a credential. It is safe for concurrent use.
type Command struct {
	name    string
	args    []string
	timeout time.Duration

	mu  sync.Mutex
	run *run
}

// New returns the command. It does not start the program. A zero timeout means [Timeout].
func New(timeout time.Duration, name string, args ...string) *Command {
	if timeout == 0 {
		timeout = Timeout
	}
	return &Command{name: name, args: slices.Clone(args), timeout: timeout}
}

// Name returns the program's name for texts. Arguments may contain secrets, so they are never
// shown.
func (c *Command) Name() string {
	return fmt.Sprintf("%q", secret.RedactLikely(c.name[:min(len(c.name), maxName)]))
}

// run is one process. It is shared by all callers that ask while it runs.
type run struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiters int
	cred    secret.Credential
	err     error
}

// Credential runs the program, or waits for the run under way, and returns the credential that it
// prints. When all callers of a run have left, the run is ended, and Credential waits for its end.
func (c *Command) Credential(ctx context.Context) (secret.Credential, error) {
	cred, _, err := c.once(ctx)
	return cred, err
}

// Refresh is like Credential, after a credential was rejected. A run that was under way may have
// read the rejected credential before it was replaced, so the program then runs once more.
func (c *Command) Refresh(ctx context.Context, rejected secret.Credential) (secret.Credential, error) {
	cred, joined, err := c.once(ctx)
	if err == nil && joined && cred.Equal(rejected) {
		cred, _, err = c.once(ctx) // this run began after the other one
	}
	return cred, err
}

// once does what Credential does. It also reports whether the run was already under way.
func (c *Command) once(ctx context.Context) (cred secret.Credential, joined bool, err error) {
	if ctx.Err() != nil {
		return secret.Credential{}, false, context.Cause(ctx)
	}
	r, joined := c.join(ctx)
	select {
	case <-r.done:
		return r.cred, joined, r.err
	case <-ctx.Done():
	}
	if c.leave(r) {
		<-r.done
	}
	return secret.Credential{}, joined, context.Cause(ctx)
}

// join returns the run under way, and true. If none is under way, it starts one.
func (c *Command) join(ctx context.Context) (*run, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run != nil {
		c.run.waiters++
		return c.run, true
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), c.timeout, errTimeout)
	r := &run{done: make(chan struct{}), cancel: cancel, waiters: 1}
	c.run = r
	go func() {
		defer cancel()
		r.cred, r.err = c.execute(ctx)
		c.mu.Lock()
		if c.run == r {
			c.run = nil
		}
		c.mu.Unlock()
		close(r.done)
	}()
	return r, false
}

// leave ends the run if no other caller waits for it, and reports whether it did so.
func (c *Command) leave(r *run) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.waiters--
	if r.waiters > 0 {
		return false
	}
	r.cancel()
	if c.run == r {
		c.run = nil
	}
	return true
}

// errTimeout is the cause if a run took too long.
var errTimeout = errors.New("timeout")

// execute runs the program once.
func (c *Command) execute(ctx context.Context) (secret.Credential, error) {
	if c.name == "" {
		return secret.Credential{}, fmt.Errorf("%w: the name of the command is empty", secret.ErrNoCredential)
	}
	path, err := exec.LookPath(c.name)
	if err != nil {
		if e, ok := errors.AsType[*exec.Error](err); ok {
			err = e.Err // without the name
		}
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			return secret.Credential{}, fmt.Errorf("%w: command %s: %w", secret.ErrNoCredential, c.Name(), err)
		}
		return secret.Credential{}, fmt.Errorf("command %s cannot be run: %w", c.Name(), err)
	}
	out, stderr := &buffer{limit: maxOutput, refuse: true}, &buffer{limit: secret.MaxText}
	cmd := exec.CommandContext(ctx, path, c.args...) // #nosec G204 -- the program names it
	cmd.Env = slices.DeleteFunc(cmd.Environ(), hasSecret)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = out, stderr, pipeWait
	isolate(cmd)
	err = cmd.Run()
	switch {
	case out.full:
		return secret.Credential{}, fmt.Errorf("%w: command %s printed more than %d bytes; it must print only the credential",
			secret.ErrInvalidCredential, c.Name(), maxOutput)
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), errTimeout):
		err = fmt.Errorf("it did not end within %v: %w", c.timeout, context.DeadlineExceeded)
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil // it has left a process behind, which holds its output open
	}
	if err != nil {
		return secret.Credential{}, fmt.Errorf("command %s failed: %w%s", c.Name(), err, quoted(stderr.text(), out.text()))
	}
	cred, err := parse(c.Name(), out.text())
	if err != nil {
		err = fmt.Errorf("%w%s", err, quoted(stderr.text(), out.text()))
	}
	return cred, err
}

// hasSecret reports whether an entry of the environment contains a credential. The names of
// variables are case-insensitive on Windows.
func hasSecret(entry string) bool {
	name, _, _ := strings.Cut(entry, "=")
	return slices.ContainsFunc(secretVariables, func(secret string) bool { return ascii.EqualFold(name, secret) })
}

const (
	// minEcho is the length of the shortest word of the output that is removed from standard error.
	minEcho = 8
	// maxEchoes is how many lines, and how many words, are removed.
	maxEchoes = 100
)

// quoted returns what a program wrote to standard error, as the end of an error text; it is "" if
// the program wrote nothing. Anything that looks like a secret, and anything that the program
// printed, is removed.
func quoted(stderr, stdout string) string {
	// A secret may contain colons, and a name before it may, too.
	printed := slices.Concat(fields(stdout, "\r\n", 1),
		fields(stdout, "\"{}[] \t\r\n", minEcho), fields(stdout, "\"{}[],: \t\r\n", minEcho))
	text := secret.RedactLikely(secret.CleanText(stderr, printed...))
	if text == "" {
		return ""
	}
	return "; it wrote: " + text
}

// fields splits text at the separators. It leaves out punctuation and all parts that are shorter
// than shortest.
func fields(text, separators string, shortest int) []string {
	all := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(separators, r) })
	for i := range all {
		all[i] = strings.TrimSpace(all[i])
	}
	isWord := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
	all = slices.DeleteFunc(all, func(s string) bool { return len(s) < shortest || !strings.ContainsFunc(s, isWord) })
	return all[:min(len(all), maxEchoes)]
}

// A buffer keeps the beginning of what is written to it.
type buffer struct {
	limit  int
	refuse bool // further output is an error, which ends the program
	full   bool
	bytes  []byte
}

var errTooLong = errors.New("the output is too long")

// Write implements [io.Writer].
func (b *buffer) Write(p []byte) (int, error) {
	n := min(len(p), b.limit-len(b.bytes))
	b.bytes = append(b.bytes, p[:n]...)
	if n == len(p) {
		return n, nil
	}
	b.full = true
	if b.refuse {
		return n, errTooLong
	}
	return len(p), nil
}

func (b *buffer) text() string { return strings.TrimSpace(string(b.bytes)) }
