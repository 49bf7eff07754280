package dkim

import (
	"bytes"
	"net/mail"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"github.com/mailpouch/mailpouch/mailer"
)

// sevenBit returns the message with a body in 7 bit, or m itself if it has one, or cannot have one.
func sevenBit(m *mailer.EmailMessage) *mailer.EmailMessage {
	if isASCII(bodyOf(m.Raw)) { // our own messages are always in 7 bit
		return m
	}
	encoded, err := mailer.EncodeBody(m.Raw)
	if err != nil {
		return m // no relay can encode it either, without breaking what it is signed with
	}
	c := *m
	c.Raw = encoded
	return &c
}

// bodyOf returns what is behind the first empty line.
func bodyOf(raw []byte) []byte {
	for rest := raw; ; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		if !ended || len(bytes.TrimSuffix(line, []byte("\r"))) == 0 {
			return after
		}
		rest = after
	}
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// signingTime is t=: when the message was handed over, as its Date says. It is "" if that cannot be read.
func signingTime(m *mailer.EmailMessage, fields []field) string {
	value, ok := get(fields, "Date")
	if !ok {
		return ""
	}
	text := string(bytes.TrimSpace(value))
	at, err := time.Parse(time.RFC1123Z, text) // ours; ParseDate tries many other forms first
	if err != nil {
		if at, err = mail.ParseDate(text); err != nil {
			at = m.Date
		}
	}
	if at.Unix() <= 0 {
		return ""
	}
	return strconv.FormatInt(at.Unix(), 10)
}

// fromDomains are the domains of the authors, in lower case and in punycode.
func fromDomains(fields []field) []string {
	value, _ := get(fields, "From")
	text := strings.ReplaceAll(string(value), "\r\n", "")
	var domains []string
	add := func(address string) {
		domain := strings.ToLower(strings.TrimSuffix(address[strings.LastIndexByte(address, '@')+1:], "."))
		if ascii, err := idna.Lookup.ToASCII(domain); err == nil {
			domain = ascii
		}
		if domain != "" {
			domains = append(domains, domain)
		}
	}
	list, err := mail.ParseAddressList(text)
	for _, box := range list {
		add(box.Address)
	}
	if err != nil { // a finished message may have what no reader agrees on: the last address counts
		if at := strings.LastIndexByte(text, '@'); at >= 0 {
			rest := text[at+1:]
			add(rest[:strings.IndexAny(rest+">", "> \t,;()\"")])
		}
	}
	return domains
}

// Aligned reports whether a signature of domain signer counts for DMARC in a message whose From has this domain, both in
// lower case and in punycode: they are the same, or under the same registered domain, which is what DMARC calls relaxed and takes
// unless the owner of the domain says otherwise (RFC 7489, 3.1.1).
func Aligned(signer, domain string) bool { return nearness(signer, domain) > 0 }

// nearness says how well a signature of signer fits a From of domain: more is nearer, and 0 does not count for DMARC.
func nearness(signer, domain string) int {
	const same = 1000 // more than twice the labels that a name has
	if signer == domain {
		return same
	}
	one, err := publicsuffix.EffectiveTLDPlusOne(signer)
	if err != nil {
		return 0
	}
	if other, err := publicsuffix.EffectiveTLDPlusOne(domain); err != nil || one != other {
		return 0
	}
	a, b := strings.Split(signer, "."), strings.Split(domain, ".")
	n := 0 // labels that both end in
	for n < len(a) && n < len(b) && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	if n == len(a) || n == len(b) { // one is in the other
		return 2*n + 1
	}
	return 2 * n
}
