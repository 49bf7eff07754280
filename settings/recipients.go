package settings

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/internal/hostname"
)

// Recipients are mail addresses, with or without display names: one at least, if there are any.
type Recipients []string

// UnmarshalText reads addresses as those of ADMINS are.
func (r *Recipients) UnmarshalText(text []byte) error {
	var all Addresses
	if err := all.UnmarshalText(text); err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("names nobody; leave it out if mail is to go to its own recipients")
	}
	*r = Recipients(all)
	return nil
}

// String writes the addresses separated by commas.
func (r Recipients) String() string { return Addresses(r).String() }

// Allowed is who may get mail: ann@example.com, example.com, .example.com for that and all domains below it, or * for everybody.
type Allowed []string

// UnmarshalText reads entries separated by commas, and names all that cannot be meant.
func (a *Allowed) UnmarshalText(text []byte) error {
	var all Allowed
	var bad []string
	for entry := range strings.SplitSeq(string(text), ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue // a comma at the end, or two of them
		}
		if !isAllowed(entry) {
			bad = append(bad, fmt.Sprintf("%q is neither a mail address nor a domain: write ann@example.com, example.com, .example.com for the domains below it too, or * for everybody", entry))
		}
		all = append(all, entry)
	}
	switch {
	case len(bad) > 0:
		return errors.New(strings.Join(bad, "; "))
	case len(all) == 0:
		return errors.New("names nobody; leave it out if everybody may get mail")
	case len(all) > 1 && slices.Contains(all, "*"):
		return errors.New("* is everybody: the other entries have no effect")
	}
	*a = all
	return nil
}

// String writes the entries separated by commas.
func (a Allowed) String() string { return strings.Join(a, ", ") }

// isAllowed reports whether an entry can be meant.
func isAllowed(entry string) bool {
	local, domain, isAddress := cutAtLast(entry)
	switch {
	case entry == "*":
		return true
	case isAddress:
		return local != "" && !strings.ContainsAny(entry, " \t;<>") && (hostname.IsUnicode(domain) || hostname.IsAddressLiteral(domain))
	}
	return hostname.IsUnicode(strings.TrimPrefix(entry, "."))
}

// cutAtLast cuts an address at its last @.
func cutAtLast(address string) (local, domain string, found bool) {
	i := strings.LastIndexByte(address, '@')
	if i < 0 {
		return "", address, false
	}
	return address[:i], address[i+1:], true
}

// Everybody reports whether everybody may get mail.
func (a Allowed) Everybody() bool { return len(a) == 0 || len(a) == 1 && a[0] == "*" }
