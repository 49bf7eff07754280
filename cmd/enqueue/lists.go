package main

import (
	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/mailer"
)

// lists is what mail to a list has beside its text, as flags say it.
type lists struct {
	unsubscribe mailer.ListUnsubscribe
	verp        string
}

// addFlags gives a command the flags. whose says which messages they are for.
func (l *lists) addFlags(c *cobra.Command, whose string) {
	f := c.Flags()
	f.StringVar(&l.unsubscribe.URL, "unsubscribe-url", "", "`URL` where the recipient leaves the list (List-Unsubscribe)"+whose)
	f.StringVar(&l.unsubscribe.Mailto, "unsubscribe-mailto", "", "`address`, or mailto: URL, for the same"+whose)
	f.BoolVar(&l.unsubscribe.OneClick, "one-click", false, "a POST to --unsubscribe-url is all that it takes (RFC 8058)"+whose)
	f.StringVar(&l.verp, "verp", "", "`address` that bounces go to, with the recipient's in it: bounces+ann=example.com@..."+whose)
}

// apply gives a message what it has not said itself.
func (l *lists) apply(m *mailer.EmailMessage) {
	if m.ListUnsubscribe == (mailer.ListUnsubscribe{}) {
		m.ListUnsubscribe = l.unsubscribe
	}
	if m.VERP == "" {
		m.VERP = l.verp
	}
}
