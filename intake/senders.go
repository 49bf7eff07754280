package intake

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/idna"

	"github.com/mailpouch/mailpouch/internal/hostname"
)

// Senders are who messages may be from: ann@example.com, example.com, and .example.com for that and all domains below it.
type Senders []string

// UnmarshalJSON reads an array of entries, and names the first that cannot be meant.
func (s *Senders) UnmarshalJSON(data []byte) error {
	var all []string
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	return s.set(all)
}

// ParseSenders reads entries separated by commas.
func ParseSenders(text string) (Senders, error) {
	var s Senders
	return s, s.set(strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }))
}

func (s *Senders) set(all []string) error {
	for _, entry := range all {
		local, domain, isAddress := strings.Cut(entry, "@")
		if !isAddress {
			local, domain = "a", strings.TrimPrefix(entry, ".")
		}
		if local == "" || !hostname.IsUnicode(domain) {
			return fmt.Errorf("from: %q is neither a mail address nor a domain: write news@example.com, example.com, or .example.com for the domains below it too", entry)
		}
	}
	*s = all
	return nil
}

// allow reports whether a message may be from an address. Upper and lower case of ASCII are the same.
func (s Senders) allow(address string) bool {
	if len(s) == 0 {
		return true
	}
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return false
	}
	local, domain := address[:at], canonical(address[at+1:])
	return slices.ContainsFunc(s, func(entry string) bool {
		if i := strings.LastIndexByte(entry, '@'); i >= 0 {
			return lower(entry[:i]) == lower(local) && canonical(entry[i+1:]) == domain
		}
		base, below := strings.CutPrefix(entry, ".")
		base = canonical(base)
		return domain == base || below && strings.HasSuffix(domain, "."+base)
	})
}

// lower is a local part in lower case, as far as it is ASCII: that another letter looks the same to Unicode does not make it the same mailbox.
func lower(local string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, local)
}

// canonical is a domain in lower case and punycode (RFC 5890), by which it is compared.
func canonical(domain string) string {
	if punycode, err := idna.Lookup.ToASCII(domain); err == nil {
		domain = punycode
	}
	return strings.ToLower(strings.TrimSuffix(domain, "."))
}
