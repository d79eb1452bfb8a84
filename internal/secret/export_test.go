package secret

// Steps returns how much work Redact does.
func Steps(text string, secrets ...string) int {
	r := redaction{text: text, needles: newNeedles(secrets)}
	r.run()
	return r.steps
}
