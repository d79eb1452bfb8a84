package secret

// A Redactor is [Redact] for many texts with the same secrets. It is safe for concurrent use.
type Redactor struct{ needles needles }

// NewRedactor prepares the search for secrets.
func NewRedactor(secrets ...string) *Redactor { return &Redactor{newNeedles(secrets)} }

// Redact returns what [Redact] returns.
func (r *Redactor) Redact(text string) string { return r.needles.redact(text) }
