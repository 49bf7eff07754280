// Package dkim signs messages with DKIM (RFC 6376), where they are sent: a receiver can then tell that a message is from its
// domain and unchanged, and DMARC builds on that.
//
// A [Signer] puts DKIM-Signature fields on top of a message: rsa-sha256 or ed25519-sha256 (RFC 8301, RFC 8463), relaxed/relaxed,
// over the whole body. What it writes depends on the message and the keys alone, the time (t=) being the message's Date, so every try of a
// message sends the same bytes.
//
// The settings EMAIL_DKIM_DOMAIN, EMAIL_DKIM_SELECTOR and EMAIL_DKIM_KEY_FILE put a Signer around the backend of a mailer. A program
// that has its keys elsewhere makes one itself.
package dkim

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/mailpouch/mailpouch/internal/dkimkey"
	"github.com/mailpouch/mailpouch/internal/hostname"
	"github.com/mailpouch/mailpouch/mailer"
)

// Config configures a Signer.
type Config struct {
	// Keys sign: those whose domain fits the From of a message best, as Sign says. At least one is required.
	Keys []Key

	// Defaults fill in what a message lacks before it is signed, as the backend behind does later.
	Defaults mailer.Defaults
}

// Key is a key that signs for a domain.
type Key struct {
	Domain   string // d=, such as "example.com"; in punycode if it is not ASCII
	Selector string // s=: the DNS has the public key at Selector._domainkey.Domain

	// Private is an RSA key of 2,048 to 4,096 bits or an Ed25519 key: an *rsa.PrivateKey, an ed25519.PrivateKey, or
	// another crypto.Signer with such a public key, as of a hardware module. It may be used by several goroutines.
	Private crypto.Signer
}

// ParseKey reads a private key in PEM: PKCS #8, or PKCS #1 for RSA.
func ParseKey(text []byte) (crypto.Signer, error) {
	key, err := dkimkey.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("dkim: the text %w", err)
	}
	return key, nil
}

// ReadKey is ParseKey of a file.
func ReadKey(path string) (crypto.Signer, error) {
	key, err := dkimkey.Read(path)
	if err != nil {
		return nil, fmt.Errorf("dkim: %w", err)
	}
	return key, nil
}

// Record is the name and the text of the TXT record that the DNS has to have for k.
func (k Key) Record() (name, text string) {
	return dkimkey.Name(k.Selector, k.Domain), dkimkey.Record(k.Private)
}

// Error is that of a key that could not sign a message. Nothing of the message was sent.
type Error struct {
	Key string // the name of its record in the DNS, such as "mail._domainkey.example.com"
	Err error
}

func (e *Error) Error() string { return "the DKIM key of " + e.Key + " cannot sign: " + e.Err.Error() }

// Unwrap returns what the key itself says.
func (e *Error) Unwrap() error { return e.Err }

// Signer signs messages. It may be used by several goroutines.
type Signer struct {
	keys     []Key
	defaults mailer.Defaults
	digests  sync.Pool // of *digest
}

// New returns a Signer. The error says which key cannot sign.
func New(cfg Config) (*Signer, error) {
	if len(cfg.Keys) == 0 {
		return nil, errors.New("dkim: there is no key")
	}
	s := &Signer{defaults: cfg.Defaults, digests: sync.Pool{New: func() any { return newDigest() }}}
	for _, k := range cfg.Keys {
		k.Domain, k.Selector = strings.ToLower(k.Domain), strings.ToLower(k.Selector)
		name := dkimkey.Name(k.Selector, k.Domain)
		switch {
		case !hostname.IsASCII(k.Domain):
			return nil, fmt.Errorf("dkim: %q is no domain", k.Domain)
		case !hostname.IsASCII(k.Selector):
			return nil, fmt.Errorf("dkim: %q is no selector", k.Selector)
		case k.Private == nil:
			return nil, fmt.Errorf("dkim: %s has no private key", name)
		case slices.ContainsFunc(s.keys, func(o Key) bool { return o.Domain == k.Domain && o.Selector == k.Selector }):
			return nil, fmt.Errorf("dkim: %s is there twice", name)
		}
		if err := dkimkey.Check(k.Private); err != nil {
			return nil, fmt.Errorf("dkim: the key of %s %w", name, err)
		}
		s.keys = append(s.keys, k)
	}
	return s, nil
}

// Sign returns a copy of the message with DKIM-Signature fields on top, and does not change m. The same message gives the same
// bytes each time.
//
// The keys that sign are those of the domain in its From, all of them, or else of the domain that is nearest to it under the
// same registered domain, which is aligned in the relaxed sense of DMARC (RFC 7489, 3.1.1). If there is none, those of the first domain sign:
// DMARC does not count that, but receivers know by it who has sent.
//
// A finished message (Raw) with a body in 8 bit is encoded in 7 bit first, since a relay without 8BITMIME would break the signature
// by doing so (RFC 6376, 5.3). Where that is impossible, because an older signature covers the body, it is signed as it is. Signatures that a
// message has already stay, and count for nothing here: whether they are good only the DNS knows.
//
// An error is that of WriteTo for a message that cannot be written, or a *mailer.SendError of the class Temporary with an *Error in it if a key
// cannot sign.
func (s *Signer) Sign(_ context.Context, m *mailer.EmailMessage) (signed *mailer.EmailMessage, err error) {
	m = sevenBit(m.WithDefaults(s.defaults))
	d := s.digests.Get().(*digest) //nolint:forcetypeassert // nothing else is in the pool
	defer s.digests.Put(d)
	d.reset()
	if _, err := m.WriteTo(d); err != nil {
		return nil, err
	}
	bodyHash := d.body.sum()
	fields := splitFields(d.header)
	keys := s.choose(fromDomains(fields))
	names, covered := cover(fields)
	var trace []byte
	for _, k := range keys {
		field, err := k.sign(names, covered, bodyHash, signingTime(m, fields))
		if err != nil {
			return nil, &mailer.SendError{Class: mailer.Temporary, Step: mailer.StepRender, Err: err}
		}
		trace = append(trace, field...)
	}
	return m.WithSignature(trace), nil
}

// choose returns the keys that sign for a message by authors of these domains.
func (s *Signer) choose(domains []string) []Key {
	best, most := s.keys[0].Domain, 0
	for _, domain := range domains {
		for _, k := range s.keys {
			if n := nearness(k.Domain, domain); n > most {
				best, most = k.Domain, n
			}
		}
	}
	var keys []Key
	for _, k := range s.keys {
		if k.Domain == best {
			keys = append(keys, k)
		}
	}
	return keys
}

// sign returns the DKIM-Signature field. covered is what it covers of the header, in the form that is signed.
func (k Key) sign(names []string, covered, bodyHash []byte, at string) ([]byte, error) {
	algorithm, hash := "rsa-sha256", crypto.SHA256 // which is PKCS #1 v1.5
	if _, ok := k.Private.Public().(ed25519.PublicKey); ok {
		algorithm, hash = "ed25519-sha256", crypto.Hash(0) // it signs the hash as a message of its own (RFC 8463, 3)
	}
	field := unsigned(algorithm, k.Domain, k.Selector, names, bodyHash, at)
	// The field itself comes last, with an empty b= and without its CRLF (RFC 6376, 3.7).
	hashed := appendRelaxed(slices.Clip(covered), fieldName, field[len(fieldName)+len(":"):])
	sum := sha256.Sum256(bytes.TrimSuffix(hashed, []byte("\r\n")))
	signature, err := k.Private.Sign(rand.Reader, sum[:], hash) // takes nothing of what is random
	if err != nil {
		return nil, &Error{Key: dkimkey.Name(k.Selector, k.Domain), Err: err}
	}
	return appendSignature(field, signature), nil
}
