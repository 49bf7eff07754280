package dkimkey

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Name is where the DNS has the record of a key (RFC 6376, 3.6.2.1).
func Name(selector, domain string) string { return selector + "._domainkey." + domain }

// Record is the text of that record, in one piece: what verifiers need to know of a key that Check has passed.
func Record(key crypto.Signer) string {
	record := func(kind string, data []byte) string {
		return "v=DKIM1; k=" + kind + "; p=" + base64.StdEncoding.EncodeToString(data)
	}
	if public, ok := key.Public().(ed25519.PublicKey); ok {
		return record("ed25519", public) // the bare key, not as X.509 has it (RFC 8463, 4.2)
	}
	data, _ := x509.MarshalPKIXPublicKey(key.Public()) // fails for no RSA key
	return record("rsa", data)
}

// Zone is the record as a line of a zone file, in strings of at most 255 bytes (RFC 1035, 3.3), which verifiers put together
// again without anything between them (RFC 6376, 3.6.2.2).
func Zone(selector, domain string, key crypto.Signer) string {
	const longest = 255
	var pieces []string
	record := Record(key)
	for len(record) > longest {
		pieces, record = append(pieces, `"`+record[:longest]+`"`), record[longest:]
	}
	pieces = append(pieces, `"`+record+`"`)
	text := strings.Join(pieces, " ")
	if len(pieces) > 1 {
		text = "( " + text + " )"
	}
	return Name(selector, domain) + ". IN TXT " + text
}

// IsRecord reports whether a TXT record is meant to be one of DKIM.
func IsRecord(text string) bool {
	tags := parseTags(text)
	_, hasKey := tags["p"]
	return hasKey || strings.HasPrefix(strings.TrimSpace(text), "v=DKIM1")
}

// CheckRecord says why a record in the DNS does not let verifiers accept signatures of key. test reports that the record says so only for
// a trial (t=y), in which case many verifiers take a signature as none.
func CheckRecord(text string, key crypto.Signer) (test bool, err error) {
	tags := parseTags(text)
	kind, named := tags["k"]
	if !named {
		kind = "rsa"
	}
	if v, said := tags["v"]; said && v != "DKIM1" {
		return false, fmt.Errorf("has v=%s, not v=DKIM1", v)
	}
	listed := func(tag string, any ...string) bool { // whether a list in the record has one of these, or there is no list
		list, said := tags[tag]
		if !said {
			return true
		}
		for entry := range strings.SplitSeq(list, ":") {
			for _, a := range any {
				if strings.TrimSpace(entry) == a {
					return true
				}
			}
		}
		return false
	}
	data := strings.Join(strings.Fields(tags["p"]), "")
	wanted := "rsa"
	if _, ok := key.Public().(ed25519.PublicKey); ok {
		wanted = "ed25519"
	}
	_, hasKey := tags["p"]
	switch {
	case hasKey && data == "":
		return false, errors.New("has an empty p=: the key was revoked")
	case data == "":
		return false, errors.New("has no p=, which holds the key")
	case kind != wanted:
		return false, fmt.Errorf("is for a key of the kind k=%s, and ours is k=%s", kind, wanted)
	case !listed("h", "sha256"):
		return false, fmt.Errorf("takes only the hash functions h=%s, and ours is sha256", tags["h"])
	case !listed("s", "*", "email"):
		return false, fmt.Errorf("is for the service s=%s, not for email", tags["s"])
	case !isKey(data, key):
		return false, errors.New("is for another key")
	}
	_, flagged := tags["t"]
	return flagged && listed("t", "y"), nil
}

// isKey reports whether data, the p= of a record, is the public half of key.
func isKey(data string, key crypto.Signer) bool {
	raw, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		return false
	}
	switch public := key.Public().(type) {
	case ed25519.PublicKey:
		return bytes.Equal(raw, public)
	case *rsa.PublicKey:
		// Records have the one form in practice, and the RFC names the other (RFC 6376, 3.6.1, and its erratum 3017).
		if other, err := x509.ParsePKIXPublicKey(raw); err == nil {
			return public.Equal(other)
		}
		other, err := x509.ParsePKCS1PublicKey(raw)
		return err == nil && public.Equal(other)
	}
	return false
}

// parseTags reads tags and values (RFC 6376, 3.2).
func parseTags(text string) map[string]string {
	tags := map[string]string{}
	for pair := range strings.SplitSeq(text, ";") {
		if name, value, found := strings.Cut(pair, "="); found {
			tags[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return tags
}
