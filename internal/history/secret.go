package history

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"strings"
	"sync"
)

// hashSize is how many bytes of a recipient's HMAC are kept: enough that no two recipients of an installation share them.
const hashSize = 8

// Secret is the key of an installation: it makes recipients unrecognisable, and yet findable for who knows one. It is made
// when the first worker starts, and kept in Redis, so that programs and workers need no setting that has to be the same for
// all. It protects a look at the records alone; who reads all of Redis has the key too.
type Secret struct {
	text string
	pool sync.Pool // of hash.Hash
}

func newSecret(text string) *Secret {
	k := &Secret{text: text}
	k.pool.New = func() any { return hmac.New(sha256.New, []byte(text)) }
	return k
}

// append appends the hash of a recipient.
func (k *Secret) append(data []byte, recipient string) []byte {
	h, _ := k.pool.Get().(hash.Hash)
	defer k.pool.Put(h)
	h.Reset()
	_, _ = h.Write([]byte(strings.ToLower(recipient)))
	var sum [sha256.Size]byte
	return append(data, h.Sum(sum[:0])[:hashSize]...)
}
