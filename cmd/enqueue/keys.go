package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"
)

// keys makes the idempotency keys of a run that can be resumed. A line's key is made of the
// run's name, the line's text and how often the same line came before it. So a file
// may be mended, extended or put in another order between two runs: what is the same
// stays the same mail, and what is new is new.
type keys struct {
	run  string
	seen map[[15]byte]int
}

func newKeys(run string) *keys {
	if run == "" {
		return nil
	}
	return &keys{run: run, seen: map[[15]byte]int{}}
}

// of returns the next line's key, or "" if k is nil.
func (k *keys) of(line []byte) string {
	if k == nil {
		return ""
	}
	sum := sha256.Sum256(bytes.TrimSpace(line))
	hash := [15]byte(sum[:])
	k.seen[hash]++
	return fmt.Sprintf("%s:%s:%d", k.run, strings.ToLower(base32.StdEncoding.EncodeToString(hash[:])), k.seen[hash])
}
