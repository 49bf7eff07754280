package history

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"hash"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/redisconn"
)

// keyName is where the key of the installation is. It is made at its first use, so that programs and workers need no
// setting that has to be the same for all. It protects a look at the records alone; who reads all of Redis has the key too.
const keyName = "mailpouch:history:key"

// hashSize is how many bytes of a recipient's HMAC are kept: enough that no two recipients of an installation share them.
const hashSize = 8

// Secret makes recipients unrecognisable, and yet findable for who knows one.
type Secret struct {
	text string
	pool sync.Pool // of hash.Hash
}

func newSecret(text string) *Secret {
	k := &Secret{text: text}
	k.pool.New = func() any { return hmac.New(sha256.New, []byte(text)) }
	return k
}

// ReadSecret returns the key of the installation in a Redis, or offers one as that if there is none: offered, if that is not nil.
func ReadSecret(ctx context.Context, client redis.UniversalClient, offered *Secret) (*Secret, error) {
	text, err := client.Get(ctx, keyName).Result()
	if errors.Is(err, redis.Nil) {
		text = rand.Text()
		if offered != nil {
			text = offered.text
		}
		if err := client.SetNX(ctx, keyName, text, 0).Err(); err != nil {
			return nil, redisconn.Unavailable(err)
		}
		text, err = client.Get(ctx, keyName).Result() // another one may have been faster
	}
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	if offered != nil && offered.text == text {
		return offered, nil
	}
	return newSecret(text), nil
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

func mask(address string) string { return redact.Address(address) }
