package agrenting

import (
	"bytes"
	"encoding"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"html/template"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/sdktest/leak"
	"github.com/agrenting/agrenting-go/internal/sdktest/sample"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/webhook"
)

const probeSecret = "sk_sandbox_Zq7+Wm/3Xp9=Rt5~Kv2&Ln8"

// TestValuesPrintNoSecret holds every type that contains secrets against
// every way of making text of a value. To cover another type, add a probe.
func TestValuesPrintNoSecret(t *testing.T) {
	t.Parallel()

	key := APIKey(probeSecret)
	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, []byte(probeSecret), 0o600))

	fileSource := newFileSource(file, 0)
	_, err := fileSource.Credential(t.Context())
	require.NoError(t, err)

	cfg, err := readVars(map[string]string{"AGRENTING_API_KEY": probeSecret, "AGRENTING_SESSION_TOKEN": probeSecret}, "")
	require.NoError(t, err)

	_, invalid := ParseCredential(probeSecret + " ")
	require.NoError(t, invalid)
	_, invalid = ParseCredential(probeSecret + " " + probeSecret)
	require.Error(t, invalid)

	probe(t, "api key", key, probeSecret)
	probe(t, "user token", UserToken(probeSecret), probeSecret)
	probe(t, "session", SessionToken(probeSecret, time.Unix(1<<31, 0)), probeSecret)
	probe(t, "exchanged session", Credential{secret.NewSession(probeSecret, time.Time{}, key.c)}, probeSecret)
	probe(t, "zero credential", Credential{}, probeSecret)
	probe(t, "static source", Static(key), probeSecret)
	probe(t, "invalid static source", Static(APIKey(probeSecret+"\n")), probeSecret)
	probe(t, "file source", fileSource, probeSecret)
	probe(t, "source func", CredentialSourceFunc(Static(key).Credential), probeSecret)
	probe(t, "environment", cfg, probeSecret)
	probe(t, "no credential", cfg.noCredential(), probeSecret)
	probe(t, "invalid credential", invalid, probeSecret)
	probe(t, "mismatch", checkEnvironment(Production, key, false), probeSecret)

	hook, err := webhook.ParseSecret(probeSecret)
	require.NoError(t, err)
	verifier, err := webhook.NewVerifier([]webhook.Secret{hook})
	require.NoError(t, err)
	probe(t, "webhook secret", hook, probeSecret)
	probe(t, "webhook verifier", verifier, probeSecret)

	unfound := unfoundSecret("/x", rawAnswer(`{"data":{"novelty":"`+probeSecret+`"}}`), nil)
	probe(t, "issued secret error", unfound, probeSecret)
}

func TestACrashDoesNotPrintASecret(t *testing.T) {
	t.Parallel()

	for kind := range crashes {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()

			exe, err := os.Executable()
			require.NoError(t, err)

			cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestCrashChild$", "--", crashArg+kind)
			cmd.Env = append(os.Environ(), "GOTRACEBACK=all")

			out, err := cmd.CombinedOutput()
			require.Error(t, err)
			require.Contains(t, string(out), "panic: ")
			leak.AssertNone(t, string(out), probeSecret)
		})
	}
}

const crashArg = "crash:"

// crashes are values that a program may panic with.
var crashes = map[string]func() any{
	"credential":        func() any { return APIKey(probeSecret) },
	"pointer":           func() any { return new(APIKey(probeSecret)) },
	"holder":            func() any { return unexportedHolder[Credential]{APIKey(probeSecret)} },
	"pointer to holder": func() any { return &exportedHolder[Credential]{APIKey(probeSecret)} },
	"text of a holder":  func() any { return fmt.Sprintf("%+v", unexportedHolder[Credential]{APIKey(probeSecret)}) },
	"error of a holder": func() any { return fmt.Errorf("%#v", &unexportedHolder[Credential]{APIKey(probeSecret)}) },
	"failed conversion": func() any { return any(APIKey(probeSecret)).(fmt.Scanner) }, //nolint:errcheck // panics
}

// TestCrashChild is what TestACrashDoesNotPrintASecret runs in another process.
func TestCrashChild(t *testing.T) { //nolint:paralleltest // crashes, or does nothing
	if kind, child := strings.CutPrefix(flag.Arg(0), crashArg); child {
		panic(crashes[kind]())
	}
}

type exportedHolder[T any] struct{ Value T }

type unexportedHolder[T any] struct{ value T }

// probing lets one outlet after the other look at a value: testify's diffs read
// its content without its locks.
var probing sync.Mutex

// probe makes text of value, and of all sorts of holders of it, in every way
// there is, and fails when any of the secrets shows in any form.
func probe[T any](t *testing.T, name string, value T, secrets ...string) {
	t.Helper()

	holders := map[string]any{
		"value":                        value,
		"pointer":                      &value,
		"exported field":               exportedHolder[T]{value},
		"unexported field":             unexportedHolder[T]{value},
		"pointer to exported field":    &exportedHolder[T]{value},
		"pointer to unexported field":  &unexportedHolder[T]{value},
		"pointer in unexported field":  unexportedHolder[*T]{&value},
		"exported interface field":     exportedHolder[any]{value},
		"unexported interface field":   unexportedHolder[any]{value},
		"pointer in interface field":   unexportedHolder[any]{&value},
		"holder in a holder":           unexportedHolder[exportedHolder[T]]{exportedHolder[T]{value}},
		"slice":                        []T{value},
		"slice of interfaces":          []any{value, &value},
		"array in an unexported field": unexportedHolder[[1]T]{[1]T{value}},
		"map value":                    map[string]T{"key": value},
		"map in an unexported field":   unexportedHolder[map[string]T]{map[string]T{"key": value}},
	}

	for holder, held := range holders {
		for outlet, write := range outlets {
			if sample.Fewer && outlet == "failed assertions" && holder != "value" && holder != "pointer" {
				continue // the diff of a client has a megabyte
			}
			t.Run(name+"/"+holder+"/"+outlet, func(t *testing.T) {
				t.Parallel()

				var out bytes.Buffer

				probing.Lock()
				defer probing.Unlock()
				write(t, &out, held)
				leak.AssertNone(t, out.String(), secrets...)
			})
		}
	}
}

var outlets = map[string]func(t *testing.T, out *bytes.Buffer, value any){
	"fmt": func(_ *testing.T, out *bytes.Buffer, value any) {
		for _, flags := range []string{"", "+", "#", " ", "0", "-60.40", "+#"} {
			for _, verb := range "vsqxXdptcUeEfFgGboOwTz" {
				fmt.Fprintln(out, fmt.Errorf("%"+flags+string(verb), value)) // knows %w as well
			}
		}

		fmt.Fprint(out, value, "\n", fmt.Sprint(value), fmt.Sprintln(value))
	},
	"methods": func(_ *testing.T, out *bytes.Buffer, value any) {
		if v, ok := value.(fmt.Stringer); ok {
			fmt.Fprintln(out, v.String())
		}

		if v, ok := value.(fmt.GoStringer); ok {
			fmt.Fprintln(out, v.GoString())
		}

		if v, ok := value.(encoding.TextMarshaler); ok {
			text, err := v.MarshalText()
			fmt.Fprintln(out, string(text), err)
		}

		if v, ok := value.(encoding.BinaryMarshaler); ok {
			binary, err := v.MarshalBinary()
			fmt.Fprintln(out, string(binary), err)
		}

		if v, ok := value.(slog.LogValuer); ok {
			fmt.Fprintln(out, v.LogValue().Resolve().String())
		}

		if err, ok := value.(error); ok {
			for ; err != nil; err = errors.Unwrap(err) {
				fmt.Fprintf(out, "%s\n%v\n", err.Error(), fmt.Errorf("wrapped: %w", err))
			}
		}
	},
	"json": func(_ *testing.T, out *bytes.Buffer, value any) {
		encoded, err := json.Marshal(value)
		fmt.Fprintln(out, string(encoded), err)
	},
	"xml": func(_ *testing.T, out *bytes.Buffer, value any) {
		encoded, err := xml.Marshal(value)
		fmt.Fprintln(out, string(encoded), err)
	},
	"gob": func(_ *testing.T, out *bytes.Buffer, value any) {
		err := gob.NewEncoder(out).Encode(value)
		fmt.Fprintln(out, err)
	},
	"slog text": func(_ *testing.T, out *bytes.Buffer, value any) {
		logTo(slog.NewTextHandler(out, &slog.HandlerOptions{AddSource: true}), value)
	},
	"slog json": func(_ *testing.T, out *bytes.Buffer, value any) {
		logTo(slog.NewJSONHandler(out, nil), value)
	},
	"template": func(t *testing.T, out *bytes.Buffer, value any) {
		t.Helper()

		tmpl := template.Must(template.New("").Parse(
			`{{.}}<a href="/?k={{.}}" onclick="f({{.}})">{{printf "%+v" .}}</a><script>let x = {{.}}</script>`))
		fmt.Fprintln(out, tmpl.Execute(out, value))
	},
	"failed assertions": func(_ *testing.T, out *bytes.Buffer, value any) {
		failed := failures{out}
		other := reflect.New(reflect.TypeOf(value)).Elem().Interface() // of the same type, for the sake of a diff

		assert.Equal(failed, other, value)
		assert.Equal(failed, value, other)
		assert.EqualValues(failed, value, other)
		assert.Exactly(failed, value, other)
		assert.NotEqual(failed, value, value) //nolint:testifylint // meant to fail
		assert.Contains(failed, []any{value}, "x")
		assert.ElementsMatch(failed, []any{value}, []any{other})
		assert.Subset(failed, []any{value}, []any{other})
		assert.Nil(failed, value)
		assert.Zero(failed, value)
		assert.Empty(failed, value)
		assert.IsType(failed, 0, value)
		assert.Len(failed, value, 99)
		assert.Fail(failed, "message", "%v", value)
		fmt.Fprint(out, assert.ObjectsAreEqual(value, other))
	},
	"panic": func(_ *testing.T, out *bytes.Buffer, value any) {
		for _, reason := range []any{value, fmt.Sprint(value), fmt.Errorf("%+v", value)} {
			func() {
				defer func() { fmt.Fprintf(out, "panic: %v\n", recover()) }()

				panic(reason)
			}()
		}
	},
	"reflection": func(_ *testing.T, out *bytes.Buffer, value any) {
		walk(out, reflect.ValueOf(value), map[uintptr]bool{})
	},
}

func logTo(h slog.Handler, value any) {
	l := slog.New(h)
	l.Info("message", "key", value)
	l.Info("message", slog.Group("group", slog.Any("key", value)))
	l.With("key", value).WithGroup("group").Info("message", "key", []any{value})
	l.Info("message", "key", exportedHolder[any]{value}, "other", &unexportedHolder[any]{value})
}

// failures is a testing.TB of sorts that keeps what assertions say.
type failures struct{ out *bytes.Buffer }

func (f failures) Errorf(format string, args ...any) { fmt.Fprintf(f.out, format+"\n", args...) }

// walk writes every string and byte that reflection reaches, exported or not.
func walk(out *bytes.Buffer, v reflect.Value, seen map[uintptr]bool) {
	switch v.Kind() {
	case reflect.String:
		fmt.Fprintln(out, v.String())
	case reflect.Pointer:
		if v.IsNil() || seen[v.Pointer()] {
			return
		}

		seen[v.Pointer()] = true
		walk(out, v.Elem(), seen)
	case reflect.Interface:
		walk(out, v.Elem(), seen)
	case reflect.Struct:
		for _, field := range v.Fields() {
			walk(out, field, seen)
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			for i := range v.Len() {
				out.WriteByte(byte(v.Index(i).Uint()))
			}

			return
		}

		for i := range v.Len() {
			walk(out, v.Index(i), seen)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			walk(out, key, seen)
			walk(out, v.MapIndex(key), seen)
		}
	default: // numbers hold no secret, and funcs and channels cannot be inspected
	}
}

func TestReflectionOutletFindsSecrets(t *testing.T) {
	t.Parallel()

	var out bytes.Buffer

	outlets["reflection"](t, &out, &unexportedHolder[any]{map[string]any{"k": [][]byte{[]byte(probeSecret)}}})
	assert.Contains(t, out.String(), probeSecret)
}
