package intake

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/internal/name"
	"github.com/mailpouch/mailpouch/internal/rate"
	"github.com/mailpouch/mailpouch/mailer"
)

// Key is what a client may do. It is a line of the file of keys: a JSON object.
type Key struct {
	Name string `json:"name"` // shown in logs, and in the tag of its messages
	Hash Hash   `json:"hash"` // of the secret

	// From is who its messages may be from: addresses (news@example.com), domains (example.com), and domains with those below
	// them (.example.com). It holds for the From and Sender of the header and for the sender of the envelope. Anybody if empty.
	From Senders `json:"from,omitempty"`

	Mailer string `json:"mailer,omitempty"` // the mailer that its messages go with: the default one if empty
	Queue  string `json:"queue,omitempty"`  // the queue that they wait in: the configured one if empty

	// Rate is how many messages it may hand in, by all ways in and at all processes together, such as 100/s or 10000/d. No limit if empty.
	Rate rate.Limits `json:"rate,omitempty"`

	Choices []Choice `json:"choices,omitempty"` // what it may say of each message
}

// Choice is something that a client may say of a message, if its key lets it.
type Choice string

// The choices.
const (
	ChooseQueue    Choice = "queue"    // the queue that it waits in
	ChooseMailer   Choice = "mailer"   // the mailer that it goes with
	ChooseMailing  Choice = "mailing"  // the mailing that it belongs to
	ChooseTags     Choice = "tags"     // its tags
	ChooseSchedule Choice = "schedule" // when it is due
)

// Choices are all that there are.
func Choices() []Choice {
	return []Choice{ChooseQueue, ChooseMailer, ChooseMailing, ChooseTags, ChooseSchedule}
}

// UnmarshalText reads the name of a choice.
func (c *Choice) UnmarshalText(text []byte) error {
	if !slices.Contains(Choices(), Choice(text)) {
		return fmt.Errorf("%q is no choice: there are queue, mailer, mailing, tags and schedule", text)
	}
	*c = Choice(text)
	return nil
}

// May reports whether the key lets its client choose that. A client without a key may choose everything: it is trusted.
func (k *Key) May(c Choice) bool { return k == nil || slices.Contains(k.Choices, c) }

// tagPrefix is what the tag begins with by which a message belongs to a key.
const tagPrefix = "api-key:"

// Tag is the tag that the key's messages have.
func (k *Key) Tag() string { return tagPrefix + k.Name }

// Hash is the SHA-256 of a secret. The secret is random and long, so that nothing slower is needed to keep it from being guessed.
type Hash [sha256.Size]byte

const hashPrefix = "sha256:"

// MarshalText writes the hash as the file of keys has it: sha256: and hexadecimal digits.
func (h Hash) MarshalText() ([]byte, error) {
	return []byte(hashPrefix + hex.EncodeToString(h[:])), nil
}

// UnmarshalText reads what MarshalText writes.
func (h *Hash) UnmarshalText(text []byte) error {
	digits, ok := strings.CutPrefix(string(text), hashPrefix)
	if n, err := hex.Decode(make([]byte, len(digits)), []byte(digits)); !ok || err != nil || n != len(h) {
		return errors.New("is no sha256: with 64 hexadecimal digits, as worker key new writes it")
	}
	_, _ = hex.Decode(h[:], []byte(digits))
	return nil
}

func hashOf(secret string) Hash { return sha256.Sum256([]byte(secret)) }

// secretPrefix is what all secrets begin with, so that programs that look for secrets in files find them.
const secretPrefix = "mp_"

// NewKey returns a key with a new secret. That is shown to nobody but its client: Key has its hash alone.
func NewKey(name string) (key Key, secret string) {
	secret = secretPrefix + rand.Text() + rand.Text()[:6] // 160 bits
	return Key{Name: name, Hash: hashOf(secret), Choices: []Choice{ChooseTags, ChooseSchedule}}, secret
}

// maxName is how many bytes the name of a key may have, so that its tag is one.
const maxName = 48

// check refuses a key that cannot be meant.
func (k *Key) check() error {
	var all []error
	switch {
	case k.Name == "":
		all = append(all, errors.New("name: is missing"))
	case !name.Is(k.Name) || len(k.Name) > maxName:
		all = append(all, fmt.Errorf("name: %q is not made of %s, or has more than %d bytes", k.Name, name.Rule, maxName))
	}
	if k.Hash == (Hash{}) {
		all = append(all, errors.New("hash: is missing; worker key new makes one"))
	}
	if err := (mailer.Options{Using: k.Mailer, Queue: k.Queue}).Validate(); err != nil {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// Keys are the keys of a file. The zero value has none.
type Keys struct{ all []Key }

// All returns the keys, in the order of the file.
func (k *Keys) All() []Key { return slices.Clone(k.all) }

// Find returns the key with that secret, nil if there is none. How long that takes says nothing about the secrets.
func (k *Keys) Find(secret string) *Key {
	hash := hashOf(secret)
	found := -1
	for i := range k.all {
		if subtle.ConstantTimeCompare(k.all[i].Hash[:], hash[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return nil
	}
	return &k.all[found]
}

// current is the key with that hash, which somebody has shown the secret of.
func (k *Keys) current(hash Hash) *Key {
	if i := slices.IndexFunc(k.all, func(key Key) bool { return key.Hash == hash }); i >= 0 {
		return &k.all[i]
	}
	return nil
}
