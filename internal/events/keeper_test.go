package events

import (
	"context"
	"sync"
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

// An endpoint is taken out of the settings, and it was the only one: what it has not read does not count as lost for ever.
func TestKeeper_forgets(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.source("webhook-gone", quick())
	d.until("it is known who reads", func() bool { return d.redis.HExists(t.Context(), groupsKey, "used:webhook-gone").Val() })
	d.add("default", plenty, "a")
	d.redis.HSet(t.Context(), groupsKey, "used:webhook-gone", time.Now().Add(-unusedFor-time.Minute).Unix())
	k := NewKeeper(d.redis, Config{Size: plenty}, zerolog.Nop())
	k.every, k.forget = time.Millisecond, time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { k.Run(ctx) })
	d.until("it is forgotten", func() bool { return !d.redis.HExists(t.Context(), groupsKey, "used:webhook-gone").Val() })
	cancel()
}
