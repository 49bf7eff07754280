package workercli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/mailpouch/mailpouch/internal/dkimkey"
	"github.com/mailpouch/mailpouch/settings"
)

// checkedKey is what there is to say of a key that signs.
type checkedKey struct {
	name     string // of its record in the DNS
	warnings []string
	err      error
}

// checkKeys asks the DNS for the records of the keys that sign. Where it does not answer nothing is known, and that is no error.
func checkKeys(ctx context.Context, dns *net.Resolver, s settings.Settings) []checkedKey {
	keys, err := dkimKeys(s)
	if err != nil {
		return []checkedKey{{name: "keys", err: err}}
	}
	checked := make([]checkedKey, len(keys))
	for i, k := range keys {
		c := checkedKey{name: dkimkey.Name(k.Selector, k.Domain)}
		c.warnings, c.err = checkRecord(ctx, dns, c.name, k)
		if info, err := os.Stat(k.File); err == nil && info.Mode()&0o004 != 0 {
			c.warnings = append(c.warnings, k.File+" can be read by every user of this machine: who has the key signs as "+k.Domain)
		}
		checked[i] = c
	}
	return checked
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
