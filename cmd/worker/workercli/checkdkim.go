package workercli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"

	"golang.org/x/net/idna"

	"github.com/mailpouch/mailpouch/backends/dkim"
	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/dkimkey"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

// asciiDomain is a domain as the DNS has it.
func asciiDomain(domain string) string {
	if ascii, err := idna.Lookup.ToASCII(domain); err == nil {
		return ascii
	}
	return domain
}

// checkDKIM asks the DNS for the records of the keys that sign, and reports whether all is well. Where the DNS does not answer,
// nothing is known, and that is no failure.
func checkDKIM(ctx context.Context, w io.Writer, dns *net.Resolver, s settings.Settings) bool {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	keys, err := dkimKeys(s)
	if err != nil {
		return report(w, "DKIM", "keys", err) == nil
	}
	good := true
	for _, k := range keys {
		name := dkimkey.Name(k.Selector, k.Domain)
		warnings, err := checkRecord(ctx, dns, name, k)
		if info, err := os.Stat(k.File); err == nil && info.Mode()&0o004 != 0 {
			warnings = append(warnings, k.File+" can be read by every user of this machine: who has the key signs as "+k.Domain)
		}
		good = report(w, "DKIM", name, err) == nil && good
		printWarnings(w, warnings)
	}
	if len(keys) > 0 {
		printWarnings(w, unalignedWarnings(s))
	}
	return good
}

// checkRecord asks for the record of a key.
func checkRecord(ctx context.Context, dns *net.Resolver, name string, k dkimKey) (warnings []string, err error) {
	publish := "; publish " + dkimkey.Zone(k.Selector, k.Domain, k.private)
	texts, err := dns.LookupTXT(ctx, name+".")
	var failure *net.DNSError
	switch {
	case errors.As(err, &failure) && failure.IsNotFound:
		return nil, fmt.Errorf("the DNS has no such record, so no receiver can verify a signature%s", publish)
	case err != nil:
		return []string{"the DNS could not be asked for the record: " + err.Error() + publish}, nil
	}
	records := slices.DeleteFunc(texts, func(text string) bool { return !dkimkey.IsRecord(text) })
	switch len(records) {
	case 0:
		return nil, fmt.Errorf("the DNS has a TXT record there, but none of DKIM%s", publish)
	case 1:
	default:
		return nil, fmt.Errorf("the DNS has %d records there, and a receiver may take any of them: leave one (RFC 6376, 3.6.2.2)", len(records))
	}
	test, err := dkimkey.CheckRecord(records[0], k.private)
	if err != nil {
		return nil, fmt.Errorf("the record in the DNS %w%s", err, publish)
	}
	if test {
		warnings = append(warnings, "the record has t=y, for a trial: many receivers treat what is signed as if it was not")
	}
	return warnings, nil
}

// unalignedWarnings are about senders whose domain no key signs for.
func unalignedWarnings(s settings.Settings) []string {
	var warnings []string
	for _, from := range sendersSet(s) {
		envelope, err := (&mailer.EmailMessage{FromEmail: from.address}).Envelope()
		if err != nil {
			continue // there is a warning already
		}
		_, domain, _ := cutLast(envelope.From, "@")
		aligned := func(k settings.DKIMKey) bool { return dkim.Aligned(asciiDomain(k.Domain), domain) }
		if keys := s.DKIM.Keys(); len(keys) > 0 && !slices.ContainsFunc(keys, aligned) {
			warnings = append(warnings, fmt.Sprintf("%s: no key is for %s, so its mail is signed by %s, which does not count for DMARC",
				from.variable, cli.Line(domain), keys[0].Domain))
		}
	}
	return warnings
}
