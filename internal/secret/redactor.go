package secret

// A Redactor does what [Redact] does, for many texts with the same secrets. It is safe for
// concurrent use.
type Redactor struct{ needles needles }

// NewRedactor returns a Redactor for the given secrets.
func NewRedactor(secrets ...string) *Redactor { return &Redactor{newNeedles(secrets)} }

// Redact returns text as the function [Redact] does.
func (r *Redactor) Redact(text string) string { return r.needles.redact(text) }
