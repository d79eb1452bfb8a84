package secret

import "fmt"

// Named is implemented by the SDK's own sources and stores. What String returns has no secret.
type Named interface {
	fmt.Stringer
	ShowsNoSecret()
}

// NameOf names a source or a store in an error: a [Named] by its String, and anything else by
// its type, because it may print the URL of a vault with the password in it. It is empty for nil.
func NameOf(v any) (name string) {
	if v == nil {
		return ""
	}
	defer func() {
		if recover() != nil {
			name = fmt.Sprintf("%T", v)
		}
	}()
	if n, ok := v.(Named); ok {
		return Line(WithoutQueries(n.String()))
	}
	return fmt.Sprintf("%T", v)
}
