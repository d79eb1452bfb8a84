package evidence

// PathOf returns what a request is remembered by.
func PathOf(method, path string) uint64 { return uint64(Route{method, path}.key()) }

// MayRenewUnproven reports whether the budget of the book has room.
func (b *Book) MayRenewUnproven() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mayRenewUnprovenLocked()
}

// UseUnproven takes a place of the budget.
func (b *Book) UseUnproven() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.useUnprovenLocked()
}
