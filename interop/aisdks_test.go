package interop_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/openai/openai-go/v3"
	openaioption "github.com/openai/openai-go/v3/option"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
)

// foreignKey is a key of another platform, which must not reach ours.
const foreignKey = "sk-ant-Qp8Lm2Xc5Vb9Hn3Jd7Fs1"

// modelServer answers the calls of both SDKs with the text that they have sent.
func modelServer() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(fmt.Sprint(r.Header), foreignKey) {
			http.Error(w, "the key of another platform", http.StatusTeapot)
			return
		}
		var in struct {
			Messages []struct {
				Content json.RawMessage `json:"content"`
			} `json:"messages"`
		}
		_ = json.NewDecoder(r.Body).Decode(&in)
		text := ""
		if len(in.Messages) > 0 {
			var parts []struct {
				Text string `json:"text"`
			}
			if json.Unmarshal(in.Messages[0].Content, &text) != nil && json.Unmarshal(in.Messages[0].Content, &parts) == nil {
				text = parts[0].Text
			}
		}
		quoted, _ := json.Marshal(text)
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/v1/messages") {
			_, _ = fmt.Fprintf(w, `{"id":"m","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":%s}],`+
				`"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}`, quoted)
			return
		}
		_, _ = fmt.Fprintf(w, `{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"finish_reason":"stop",`+
			`"message":{"role":"assistant","content":%s}}]}`, quoted)
	})
}

var errNoText = errors.New("the response has no text")

// aiSDK is an SDK of another platform, on top of a client of this SDK.
type aiSDK struct {
	name string
	// start connects it. retries is negative for the SDK's default.
	start func(c *agrenting.Client, baseURL, key string, retries int) (say, list func(ctx context.Context, text string) (string, error))
}

var aiSDKs = []aiSDK{{"anthropic-sdk-go", startAnthropic}, {"openai-go", startOpenAI}}

func startAnthropic(c *agrenting.Client, baseURL, key string, retries int) (say, list func(context.Context, string) (string, error)) {
	opts := []anthropicoption.RequestOption{
		anthropicoption.WithoutEnvironmentDefaults(), anthropicoption.WithBaseURL(baseURL),
		anthropicoption.WithAPIKey(key), anthropicoption.WithHTTPClient(c.HTTPClient()),
	}
	if retries >= 0 {
		opts = append(opts, anthropicoption.WithMaxRetries(retries))
	}
	api := anthropic.NewClient(opts...)
	say = func(ctx context.Context, text string) (string, error) {
		m, err := api.Messages.New(ctx, anthropic.MessageNewParams{
			MaxTokens: 10, Model: "m", Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(text))},
		})
		if err != nil {
			return "", err
		}
		if len(m.Content) == 0 {
			return "", errNoText
		}
		return m.Content[0].Text, nil
	}
	list = func(ctx context.Context, _ string) (string, error) {
		_, err := api.Models.List(ctx, anthropic.ModelListParams{})
		return "", err
	}
	return say, list
}

func startOpenAI(c *agrenting.Client, baseURL, key string, retries int) (say, list func(context.Context, string) (string, error)) {
	opts := []openaioption.RequestOption{
		openaioption.WithBaseURL(baseURL + "/v1/"), openaioption.WithAPIKey(key), openaioption.WithHTTPClient(c.HTTPClient()),
	}
	if retries >= 0 {
		opts = append(opts, openaioption.WithMaxRetries(retries))
	}
	api := openai.NewClient(opts...)
	say = func(ctx context.Context, text string) (string, error) {
		m, err := api.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{
			Model: "m", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(text)},
		})
		if err != nil {
			return "", err
		}
		if len(m.Choices) == 0 {
			return "", errNoText
		}
		return m.Choices[0].Message.Content, nil
	}
	list = func(ctx context.Context, _ string) (string, error) {
		_, err := api.Models.List(ctx)
		return "", err
	}
	return say, list
}

func (s aiSDK) contact(w *world) contact {
	target := w.serve(w.guard(modelServer()))
	say, _ := s.start(w.client(agrenting.WithCredentialOverride()), target, foreignKey, 0)
	return contact{exchange: func(ctx context.Context, n int) error {
		text := fmt.Sprint("message ", n)
		got, err := say(ctx, text)
		if err != nil {
			return err
		}
		return echoed(text, got)
	}}
}

func anthropicSDK(w *world) contact { return aiSDKs[0].contact(w) }

func openaiSDK(w *world) contact { return aiSDKs[1].contact(w) }

// recorder remembers the credential headers of requests.
type recorder struct {
	mu   sync.Mutex
	seen []http.Header
	next http.Handler
}

// ServeHTTP implements http.Handler.
func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.seen = append(r.seen, req.Header.Clone())
	r.mu.Unlock()
	r.next.ServeHTTP(w, req)
}

func (r *recorder) requests() []http.Header {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen
}

// lent makes a client of this SDK for one server, with another one that is not pinned.
func lent(t *testing.T, h http.Handler, opts ...agrenting.Option) (c *agrenting.Client, seen *recorder, url string) {
	t.Helper()
	seen = &recorder{next: h}
	srv := httptest.NewServer(seen)
	t.Cleanup(srv.Close)
	base := agrenting.NewBaseTransport()
	t.Cleanup(base.CloseIdleConnections)
	c, err := agrenting.New(append([]agrenting.Option{
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL), agrenting.WithTransport(base),
	}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	return c, seen, srv.URL
}

func TestKeyOfOtherSDK_pinnedOrigin_isReplaced(t *testing.T) {
	t.Parallel()
	for _, sdk := range aiSDKs {
		for name, cred := range map[string]agrenting.Credential{
			"X-Api-Key":     agrenting.APIKey("ours-Zq7Wm3Xp9Rt5Kv2Ln8"),
			"Authorization": agrenting.SessionToken("ours-Zq7Wm3Xp9Rt5Kv2Ln8", time.Time{}),
		} {
			t.Run(sdk.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				c, seen, url := lent(t, modelServer(), agrenting.WithCredential(cred), agrenting.WithCredentialOverride())
				say, _ := sdk.start(c, url, foreignKey, 0)
				got, err := say(t.Context(), "hello")
				require.NoError(t, err)
				assert.Equal(t, "hello", got)
				require.Len(t, seen.requests(), 1)
				h := seen.requests()[0]
				assert.Contains(t, h.Get(name), "ours-")
				other := map[string]string{"X-Api-Key": "Authorization", "Authorization": "X-Api-Key"}[name]
				assert.Empty(t, h.Values(other))

				elsewhere := &recorder{next: http.NotFoundHandler()}
				srv := httptest.NewServer(elsewhere)
				t.Cleanup(srv.Close)
				say, _ = sdk.start(c, srv.URL, foreignKey, 0)
				_, err = say(t.Context(), "hello")
				require.Error(t, err)
				require.Len(t, elsewhere.requests(), 1)
				assert.Contains(t, fmt.Sprint(elsewhere.requests()[0]), foreignKey, "its own key goes where the SDK sends it")
				assert.NotContains(t, fmt.Sprint(elsewhere.requests()[0]), "ours-")
			})
		}
	}
}

func TestKeyOfOtherSDK_withoutOverride_isKept(t *testing.T) {
	t.Parallel()
	for _, sdk := range aiSDKs {
		c, seen, url := lent(t, modelServer(), agrenting.WithCredential(agrenting.APIKey("ours")))
		say, _ := sdk.start(c, url, foreignKey, 0)
		_, err := say(t.Context(), "hello")
		require.Error(t, err)
		assert.Contains(t, fmt.Sprint(seen.requests()[0]), foreignKey)
	}
}

// The retries of both SDKs multiply.
func TestRetriesOfTwoSDKs(t *testing.T) {
	t.Parallel()
	down := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Retry-After-Ms", "1") // both SDKs respect it
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	for _, sdk := range aiSDKs {
		for name, tc := range map[string]struct {
			theirs, ours       int
			ofAList, ofMessage int
		}{
			"both":        {-1, 0, 12, 3},
			"only ours":   {0, 0, 4, 1},
			"only theirs": {-1, 1, 3, 3},
		} {
			t.Run(sdk.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				c, seen, url := lent(t, down, agrenting.WithCredential(agrenting.APIKey("ours")), agrenting.WithCredentialOverride(),
					agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: tc.ours, BaseDelay: 1, MaxDelay: 1}))
				say, list := sdk.start(c, url, "unused", tc.theirs)
				_, err := list(t.Context(), "")
				require.Error(t, err)
				assert.Len(t, seen.requests(), tc.ofAList)
				_, err = say(t.Context(), "hello")
				require.Error(t, err)
				assert.Len(t, seen.requests(), tc.ofAList+tc.ofMessage, "a POST without X-Idempotency-Key is repeated by the other SDK only")
			})
		}
	}
}

// Another SDK gets a credential that renews itself. Its own key is a placeholder.
func Example_anthropic() {
	client := newPlace(modelServer(), agrenting.WithCredentialOverride())
	defer client.close()
	baseURL := client.service.URL

	api := anthropic.NewClient(
		anthropicoption.WithoutEnvironmentDefaults(),
		anthropicoption.WithBaseURL(baseURL),
		anthropicoption.WithAPIKey("unused"),
		anthropicoption.WithHTTPClient(client.HTTPClient()),
		anthropicoption.WithMaxRetries(0),
	)

	m, err := api.Messages.New(context.Background(), anthropic.MessageNewParams{
		MaxTokens: 10, Model: "m", Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock("hello"))},
	})
	must(err)
	fmt.Println(m.Content[0].Text)
	// Output: hello
}

// The same for another SDK, which sends its key as a bearer token.
func Example_openai() {
	client := newPlace(modelServer(), agrenting.WithCredentialOverride())
	defer client.close()
	baseURL := client.service.URL

	api := openai.NewClient(
		openaioption.WithBaseURL(baseURL+"/v1/"),
		openaioption.WithAPIKey("unused"),
		openaioption.WithHTTPClient(client.HTTPClient()),
		openaioption.WithMaxRetries(0),
	)

	m, err := api.Chat.Completions.New(context.Background(), openai.ChatCompletionNewParams{
		Model: "m", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hello")},
	})
	must(err)
	fmt.Println(m.Choices[0].Message.Content)
	// Output: hello
}
