package rawmessage

import (
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/mailer/internal/address"
	"github.com/mailpouch/mailpouch/mailer/internal/charset"
	"github.com/mailpouch/mailpouch/mailer/internal/mimewriter"
)

// qualified are the fields whose addresses get a domain, also with Resent- before them.
var qualified = []string{"from", "sender", "reply-to", "to", "cc"}

// Qualify returns raw with domain behind each address of the header that has none, and without the dot
// behind a domain. A signed message
// stays as it is, and so do lists that cannot be read.
func Qualify(raw []byte, domain string) []byte {
	end, body, n, reason := measureHeader(raw, false)
	if reason != "" {
		return raw
	}
	fields := splitHeader(string(raw[:end]), n)
	if isSigned(fields) {
		return raw
	}
	fields.setCharset(declaredCharset(fields, body, 0))
	var h mimewriter.Header
	h.KeepWords = true
	changed := false
	for _, f := range fields {
		name := strings.TrimPrefix(strings.ToLower(f.Name), "resent-")
		if slices.Contains(qualified, name) && isIncomplete(f.UTF8()) {
			changed = true
			h.AddressSeq(f.Name, f.Name, withDomain(f, domain), charset.UTF8())
			continue
		}
		h.Buf = append(h.Buf, f.Text...)
	}
	if !changed || h.Long != "" {
		return raw
	}
	return slices.Concat(h.Buf, raw[end:])
}

// isSigned reports whether a signature may cover the header of a message.
func isSigned(fields Fields) bool {
	media, _ := contentType(fields.Get("Content-Type"), "")
	return fields.named("DKIM-Signature") || media == "multipart/signed" || strings.HasSuffix(media, "pkcs7-mime")
}

// isIncomplete reports whether a list that can be read has an address to change.
func isIncomplete(list string) bool {
	incomplete := endsInDot(list)
	for box, reason := range address.Found(list) {
		if reason != "" {
			return false
		}
		incomplete = incomplete || isLocal(box.Addr)
	}
	return incomplete
}

// endsInDot reports whether a domain in a list ends in a dot.
func endsInDot(list string) bool {
	for {
		_, rest, found := strings.Cut(list, "@")
		if !found {
			return false
		}
		list = rest
		if end := strings.IndexAny(rest+" ", " \t,;>("); strings.HasSuffix(rest[:end], ".") {
			return true
		}
	}
}

// isLocal reports whether an address has no domain.
func isLocal(addr string) bool {
	if strings.HasPrefix(addr, `"`) {
		return address.Closed(addr) == len(addr)
	}
	return addr != "" && !strings.Contains(addr, "@")
}

func withDomain(f Field, domain string) func(yield func(address.Mailbox) bool) {
	return func(yield func(address.Mailbox) bool) {
		for box := range address.Found(f.UTF8()) {
			if isLocal(box.Addr) {
				box.Addr += "@" + domain
			}
			if !yield(box) {
				return
			}
		}
	}
}
