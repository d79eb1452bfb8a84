package hook

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
)

type key struct{}

// named returns a function that notes its calls and extends the context.
func named(name string, calls *[]string) Func[string, int] {
	return func(ctx context.Context, info string) (context.Context, func(int)) {
		before, _ := ctx.Value(key{}).(string)
		*calls = append(*calls, before+name+" begins "+info)
		return context.WithValue(ctx, key{}, before+name), func(int) { *calls = append(*calls, name+" ends") }
	}
}

func chain(panicked func(any), funcs ...Func[string, int]) *Chain[string, int] {
	c := &Chain[string, int]{}
	for _, f := range funcs {
		c.Add(f, panicked)
	}
	return c
}

func TestChainNestsItsFunctions(t *testing.T) {
	t.Parallel()
	var calls []string
	c := chain(func(any) { t.Error("nothing panics") }, named("a", &calls), nil, named("b", &calls))
	ctx, end := c.Begin(t.Context(), "x")
	end(1)
	assert.Equal(t, []string{"a begins x", "ab begins x", "b ends", "a ends"}, calls)
	assert.Equal(t, "ab", ctx.Value(key{}))
}

func TestChainSurvivesPanics(t *testing.T) {
	t.Parallel()
	var calls []string
	var values []any
	c := chain(func(v any) { values = append(values, v) },
		named("a", &calls),
		func(context.Context, string) (context.Context, func(int)) { panic("begin") },
		func(context.Context, string) (context.Context, func(int)) { return nil, func(int) { panic("end") } }, //nolint:nilnil // it may
		func(context.Context, string) (context.Context, func(int)) { return nil, nil },                        //nolint:nilnil // it may
		named("b", &calls))
	ctx, end := c.Begin(t.Context(), "x")
	end(1)
	assert.Equal(t, []any{"begin", "end"}, values)
	assert.Equal(t, []string{"a begins x", "ab begins x", "b ends", "a ends"}, calls)
	assert.Equal(t, "ab", ctx.Value(key{}))
}

func TestEmptyChain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]*Chain[string, int]{"zero": {}, "nil functions": chain(nil, nil)} {
		assert.True(t, c.Empty(), name)
		ctx, end := c.Begin(t.Context(), "x")
		assert.Nil(t, end, name)
		assert.Equal(t, t.Context(), ctx, name)
	}
}
