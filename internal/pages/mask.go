package pages

import (
	"fmt"

	"github.com/mailpouch/mailpouch/internal/redact"
)

// veil shows texts and addresses to people.
type veil struct {
	addresses bool // in full
}

// text is a text of a message or a server, for one line of a page: at most limit
// characters, none of which steers a terminal or turns the writing direction.
func (v veil) text(s string, limit int) string { return redact.Text(s, limit, v.addresses) }

// recipient is one address as it stands in a message. A masked one loses its display name.
func (v veil) recipient(s string) string {
	if v.addresses {
		return v.text(s, maxAddress)
	}
	return redact.Cut(redact.Address(s), maxAddress)
}

// recipients shows the first few of a list.
func (v veil) recipients(list []string) []string {
	shown := make([]string, 0, min(len(list), maxRecipients+1))
	for i, r := range list {
		if i == maxRecipients {
			return append(shown, fmt.Sprintf("and %d more", len(list)-i))
		}
		shown = append(shown, v.recipient(r))
	}
	return shown
}

const (
	maxAddress    = 100
	maxRecipients = 3
)
