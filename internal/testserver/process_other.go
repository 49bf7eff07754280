//go:build !linux

package testserver

// adoptOrphans does nothing: this system has no such call.
func adoptOrphans() {}

// reserve does nothing: other tests may get the port too.
func reserve(int) error { return nil }
