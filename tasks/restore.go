package tasks

import (
	"context"
	"maps"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/wire"
)

// lost notes that Redis may not have what it was told: it was away, and what answers
// again may be a replica that is behind. run soon tells it again.
func (l *ledger) lost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.missing {
		l.missing = true
		time.AfterFunc(restorePause, l.signal)
	}
}

// restoreScript adds an entry to a task that is still there: the one with the stamp
// ARGV[3] in its wire mark ARGV[4], if that is not empty.
const restoreScript = `
if redis.call("EXISTS", KEYS[1]) == 0 then return 0 end
local wire = redis.call("HGET", KEYS[1], ARGV[4]) or ""
if string.sub(wire, 1, #ARGV[3]) == ARGV[3] then redis.call("HSETNX", KEYS[1], ARGV[1], ARGV[2]) end
return 0`

// restore writes all that this worker remembers again, after Redis was away.
func (l *ledger) restore(ctx context.Context) {
	l.mu.Lock()
	if !l.missing {
		l.mu.Unlock()
		return
	}
	entries := maps.Clone(l.recent)
	l.missing = false // before Redis is told: what it misses from now on is told the next time
	l.mu.Unlock()
	_, err := l.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for name, data := range entries {
			key, rest, _ := strings.Cut(name, "\x00")
			stamp, slot, _ := strings.Cut(rest, "\x00")
			p.Eval(ctx, restoreScript, []string{key}, wire.FieldSent+slot, data, stamp, wire.FieldWire+slot)
		}
		return nil
	})
	if err != nil {
		l.lost()
	}
}
