// Package interop holds the tests of mailer that need other people's programs:
// Django as the oracle of what a message means, enmime as an independent reader and
// go-mail as the measure of speed. It is a module of its own, so that none of
// them enters the module graph of those who use Mailpouch. Run it here:
//
//	go test .
//	go test -run '^$' -bench .
//
// TestDjango needs Debian's python3-django and is skipped where that is missing.
package interop
