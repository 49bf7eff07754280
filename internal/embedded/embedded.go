// Package embedded runs a Redis-compatible server inside this process, so that the
// demo needs no other program. It keeps everything in memory and speaks
// enough of Redis for asynq and for this project; it is not for production.
package embedded

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
)

// tick is how often keys with a time to live grow older. The server looks at every
// key then; its own way of doing so (ClockTTL) looks at every key on every command,
// which is slow with some thousand messages in a queue.
const tick = 250 * time.Millisecond

// Redis is a running server.
type Redis struct {
	server *miniredis.Miniredis
	stop   chan struct{}
	clock  sync.WaitGroup
	once   sync.Once
}

// Start starts a server on addr, host and port: "" is a free port of 127.0.0.1. It
// asks for no password, so addr should be one that other machines cannot reach.
func Start(addr string) (*Redis, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	r := &Redis{server: miniredis.NewMiniRedis(), stop: make(chan struct{})}
	if err := r.server.StartAddr(addr); err != nil {
		return nil, fmt.Errorf("embedded: %w", err)
	}
	r.server.Server().SetPreHook(info)
	r.clock.Go(r.run)
	return r, nil
}

// info answers INFO with what is looked at before mail is given to a Redis: the server itself refuses the sections, and a worker would
// warn of that. Its version is that of the commands that miniredis has. That nothing is on disk the demo's users know.
func info(c *server.Peer, command string, _ ...string) bool {
	if !strings.EqualFold(command, "INFO") {
		return false
	}
	c.WriteBulk("redis_version:7.2.0\r\nrole:master\r\ncluster_enabled:0\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n")
	return true
}

// Addr is the host and port that the server listens on.
func (r *Redis) Addr() string { return r.server.Addr() }

// URL is the server's address as REDIS_URL wants it.
func (r *Redis) URL() string { return "redis://" + r.Addr() + "/0" }

// Close ends the server and its connections and forgets what was in it. It may be
// called more than once.
func (r *Redis) Close() {
	r.once.Do(func() {
		close(r.stop)
		r.clock.Wait()
		r.server.Close()
	})
}

// run lets keys grow older. When the machine is busy or asleep, ticks are lost and keys
// live longer. That does less harm than the opposite: making up for lost ticks would
// also age keys that were set since.
func (r *Redis) run() {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-t.C:
			r.server.FastForward(tick)
		}
	}
}
