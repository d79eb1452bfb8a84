package command

// Waiters returns how many callers wait for the run under way.
func (c *Command) Waiters() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run == nil {
		return 0
	}
	return c.run.waiters
}
