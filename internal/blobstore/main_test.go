package blobstore

import (
	"bytes"
	"testing"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// brochure is a big content, different for each seed.
func brochure(seed byte) []byte { return bytes.Repeat([]byte{seed, 0xff, 'x'}, 40_000) }

func blobOf(content []byte) Blob { return Blob{Hash: Hash(content), Size: len(content)} }

// hold refers to contents, all of which the caller has.
func hold(t *testing.T, s *Store, ref string, contents ...[]byte) {
	t.Helper()
	var list []Content
	for _, c := range contents {
		list = append(list, Content{blobOf(c), func() []byte { return c }})
	}
	if err := s.Hold(t.Context(), ref, list); err != nil {
		t.Fatal(err)
	}
}

// wantRefs wants so many references to a content. Without any the content expires.
func wantRefs(t *testing.T, client redis.UniversalClient, content []byte, want int64) {
	t.Helper()
	hash := Hash(content)
	refs, ttl := client.ZCard(t.Context(), refsKey(hash)).Val(), client.TTL(t.Context(), blobKey(hash)).Val()
	if refs != want || (ttl > 0) != (want == 0) {
		t.Errorf("%d references, and the blob has %v to live; want %d", refs, ttl, want)
	}
}
