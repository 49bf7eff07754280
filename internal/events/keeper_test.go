package events

import (
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// All queues together have the size, and what nobody keeps goes some day.
func TestKeeper(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for i := range 300 {
		d.add("default", plenty, numbered("a", i, i+1)...)
	}
	for i := range 150 {
		d.add("other", plenty, numbered("b", i, i+1)...)
	}
	d.add("small", plenty, "c")
	bytes := func() (sum int64) {
		stats, err := ReadStats(t.Context(), d.redis, []string{"default", "other", "small"})
		if err != nil || len(stats) != 3 {
			t.Fatal(stats, err)
		}
		for _, s := range stats {
			sum += s.Bytes
		}
		return sum
	}
	all := bytes()
	k := NewKeeper(d.redis, Config{Size: all}, zerolog.Nop())
	if err := k.look(t.Context()); err != nil || bytes() != all {
		t.Errorf("%d bytes of %d are left, %v", bytes(), all, err)
	}
	for _, key := range []string{Key("default"), stateKey("other")} {
		if ttl := d.redis.TTL(t.Context(), key).Val(); ttl < 6*24*time.Hour {
			t.Errorf("%s goes in %v", key, ttl)
		}
	}
	k.cfg.Size = all / 3
	if err := k.look(t.Context()); err != nil || bytes() != all {
		t.Errorf("it looks twice within %v: %v", k.every, err)
	}
	d.redis.Del(t.Context(), keptKey)
	if err := k.look(t.Context()); err != nil || bytes() > all/3 || bytes() < all/3-1000 {
		t.Errorf("%d bytes are left, want %d, %v", bytes(), all/3, err)
	}
	one, two := d.redis.XLen(t.Context(), Key("default")).Val(), d.redis.XLen(t.Context(), Key("other")).Val()
	if one < 90 || one > 110 || two < 45 || two > 55 {
		t.Errorf("%d and %d events are left", one, two)
	}
}
