package secret

import "fmt"

// Named is implemented by the SDK's own sources and stores. The result of String contains no
// secret.
type Named interface {
	fmt.Stringer
	ShowsNoSecret()
}

// NameOf returns the name of a source or a store for an error. It uses the String method of a
// [Named]. For anything else it uses the type, because a value may print the URL of a vault with
// a password. NameOf returns "" for nil.
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
