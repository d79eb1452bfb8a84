package secret_test

import (
	"encoding/hex"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/agrenting/agrenting-go/internal/secret"
)

func TestRedactorIsReused(t *testing.T) {
	t.Parallel()
	r := secret.NewRedactor(value)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for _, text := range []string{"", "nothing", "key " + value, hex.EncodeToString([]byte(value)), "key " + value[:len(value)-1]} {
				assert.Equal(t, secret.Redact(text, value), r.Redact(text))
			}
		})
	}
	all.Wait()
	assert.Equal(t, "text", secret.NewRedactor("").Redact("text"))
}
