package settings

import (
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/internal/dkimkey"
	"github.com/mailpouch/mailpouch/internal/hostname"
)

// DKIMOff as EMAIL_DKIM_DOMAIN signs nothing: for a named mailer, where the default one signs.
const DKIMOff = "off"

// DKIMKey is a key that signs for a domain.
type DKIMKey struct{ Domain, Selector, File string }

// The settings for DKIM.
const (
	dkimDomain   = "EMAIL_DKIM_DOMAIN"
	dkimSelector = "EMAIL_DKIM_SELECTOR"
	dkimKeyFile  = "EMAIL_DKIM_KEY_FILE"
)

// Keys returns the keys that sign, in the order of the settings; nil if nothing is signed. What is there once is for all.
func (d DKIM) Keys() []DKIMKey {
	if !d.On() {
		return nil
	}
	at := func(l List, i int) string {
		switch {
		case len(l) == 1:
			return l[0]
		case i < len(l):
			return l[i]
		}
		return ""
	}
	keys := make([]DKIMKey, max(len(d.Domains), len(d.Selectors), len(d.KeyFiles)))
	for i := range keys {
		keys[i] = DKIMKey{at(d.Domains, i), at(d.Selectors, i), at(d.KeyFiles, i)}
	}
	return keys
}

// On reports whether messages are signed.
func (d DKIM) On() bool { return len(d.Domains) > 0 && !slices.Equal(d.Domains, List{DKIMOff}) }

// dkimList is one of the three lists that say together which keys sign.
type dkimList struct {
	name    string // of the variable
	entries List
}

// checkDKIM checks all but the keys.
func (s Settings) checkDKIM(p *Problems) {
	domains := dkimList{s.Variable(dkimDomain), s.DKIM.Domains}
	selectors := dkimList{s.Variable(dkimSelector), s.DKIM.Selectors}
	files := dkimList{s.Variable(dkimKeyFile), s.DKIM.KeyFiles}
	reported := func() bool { return p.has(domains.name, selectors.name, files.name) }
	if reported() {
		return
	}
	if len(domains.entries) == 0 {
		for _, l := range []dkimList{selectors, files} {
			if len(l.entries) > 0 && !reported() {
				p.add(domains.name, "is not set, and %s is: set the domain that signs, or %s", l.name, DKIMOff)
			}
		}
		return
	}
	keys := s.DKIM.Keys()
	if len(keys) == 0 {
		return
	}
	for _, l := range []dkimList{domains, selectors, files} {
		switch n := len(l.entries); {
		case n == 0:
			p.add(l.name, "is not set: signing for %s takes %s and %s too", domains.entries, selectors.name, files.name)
		case n != 1 && n != len(keys):
			p.add(l.name, "has %d entries, and the longest of %s, %s and %s has %d: give one entry for all, or one for each",
				n, domains.name, selectors.name, files.name, len(keys))
		}
	}
	if reported() {
		return
	}
	for i, k := range keys {
		same := func(o DKIMKey) bool {
			return strings.EqualFold(o.Domain, k.Domain) && strings.EqualFold(o.Selector, k.Selector)
		}
		switch {
		case !hostname.IsUnicode(k.Domain) || !strings.Contains(k.Domain, "."):
			p.add(domains.name, "%q is no domain, such as example.com", k.Domain)
		case !hostname.IsASCII(k.Selector):
			p.add(selectors.name, "%q is no selector, which is a name in the DNS, such as mail or 2026-11", k.Selector)
		case slices.ContainsFunc(keys[:i], same):
			p.add(selectors.name, "%s is there twice for %s: each key of a domain has a selector of its own", k.Selector, k.Domain)
		}
	}
}

// checkDKIMKeys reads the keys.
func (s Settings) checkDKIMKeys(p *Problems) {
	if p.has(s.Variable(dkimDomain), s.Variable(dkimSelector), s.Variable(dkimKeyFile)) {
		return
	}
	seen := map[string]bool{}
	for _, k := range s.DKIM.Keys() {
		if seen[k.File] {
			continue
		}
		seen[k.File] = true
		if _, err := dkimkey.Read(k.File); err != nil {
			p.add(s.Variable(dkimKeyFile), "%v", err)
		}
	}
}
