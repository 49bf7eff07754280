// Package asynqbatch makes asynq servers that fetch and acknowledge many tasks in one round trip to Redis.
//
// It is made for asynq v0.26.0, and it is the only place that knows asynq's Lua scripts, its key layout and the
// fields of its protocol buffers. asynq fetches one task at a time and acknowledges each by itself: two round trips
// for every task. And it takes a task for a worker's own as long as that worker's clock says so. An asynq server runs
// its scripts on a Redis client that it is given, so the client is where that changes:
//
//	fetch a task          for as many tasks as the server has free slots; the next ones wait here until asynq asks.
//	                      Each fetch writes a random owner into the records of its tasks
//	acknowledge a task    for all tasks that end at the same moment
//	end, retry, archive,  only if the record has the owner of our fetch still. What is another worker's by now
//	  requeue, extend       is left alone
//	recover a task        only if its lease is over still, so that of several servers one does it
//	forward a task        when it is due by the clock of Redis. That clock alone also says when a lease is over
//
// The moves of a task are scripts of ours that compare the owner; see moves.go. A task's time-out is kept from asynq
// (timeout.go), and what would drop dead letters drops none (archive.go). Everything else passes through. What is in
// Redis before and after is what asynq itself would have left: the same keys, lists, leases and numbers, and one more
// field in the record of a task that is active. So asynq's client and inspector, asynqmon, asynq's command line, and
// servers without this package work on the same queues and see no difference; what such servers do to a task
// compares nothing. A script that is not known any more, in another version of asynq, passes through too: that costs speed
// and the protection, never mail. A test fails then. The scripts read Redis's clock and write: that takes
// replication of what they did, which Redis has had as its default since version 5.
//
//	asynq.Server -> broker -+-> fetcher   (slots: how many tasks to fetch)
//	                        +-> move, and steps <- Client.Do, by whoever knows first what becomes of a task
//	                        +-> Redis
//	                   claims: which tasks are ours, and until when there is no need to ask
package asynqbatch

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// Client makes asynq servers on one Redis.
type Client struct {
	*base
	steps *steps
	cut   *cut
}

// New returns a Client on the given Redis, which it does not close.
func New(client redis.UniversalClient, cfg Config) *Client {
	if cfg.Clock == nil {
		cfg.Clock = systemClock()
	}
	b := &base{redis: client, cfg: cfg, claims: newClaims(cfg.Clock)}
	return &Client{b, newSteps(b), newCut()}
}

// CutOff has all commands of the servers fail from now on, also those that wait for Redis. Shutdown then takes no
// longer than the configuration gives the handlers. What Redis does not hear of comes back when its lease is over.
func (c *Client) CutOff() { c.cut.once.Do(func() { close(c.cut.off) }) }

// Server is an asynq server that fetches and acknowledges many tasks in a round trip.
type Server struct {
	asynq   *asynq.Server
	slots   *slots
	fetcher *fetcher
	stop    sync.Once
	end     sync.Once
}

// ServerConfig is the configuration of a server. The logger is the Client's.
type ServerConfig struct {
	asynq.Config

	// Eager reports whether an empty queue is asked again after a millisecond, instead of after CheckInterval.
	// Nil is always.
	Eager func() bool

	// Limit returns how many tasks the server may have, of all that it has room for. While that is none it asks Redis
	// for nothing. Nil is no limit.
	Limit func(all int) int
}

// NewServer returns a server that is not started yet.
func (c *Client) NewServer(cfg ServerConfig) *Server {
	if cfg.Eager == nil {
		cfg.Eager = func() bool { return true }
	}
	if cfg.Limit == nil {
		cfg.Limit = func(all int) int { return all }
	}
	cfg.Logger = newLogger(c.cfg.Logger)
	s := newSlots(cfg.Concurrency)
	f := newFetcher(c.base, s, cfg.Eager)
	f.limit, f.queues, f.interval = cfg.Limit, slices.Collect(maps.Keys(cfg.Queues)), cmp.Or(cfg.TaskCheckInterval, time.Second)
	cfg.TaskCheckInterval = roundPause
	c.wakers.add(f, f.queues)
	return &Server{asynq: asynq.NewServerFromRedisClient(cutClient{c.broker(f), c.cut.off}, cfg.Config), slots: s, fetcher: f}
}

// Start starts to fetch tasks and to give them to the handler.
func (s *Server) Start(h asynq.Handler) error { return s.asynq.Start(s.slots.handler(h)) }

// Stop makes the server fetch no more tasks. What no handler has begun goes back to its queue. Whoever calls it, it
// returns when that is done.
func (s *Server) Stop() {
	s.stop.Do(func() {
		s.fetcher.waitNoMore()
		s.asynq.Stop()
		s.fetcher.close(context.Background())
	})
}

// InHand is how many tasks the server has fetched that no handler has ended.
func (s *Server) InHand() int { return s.slots.taken() + s.fetcher.waiting() }

// Unbegun takes the tasks that were fetched and that asynq has not asked for yet, and returns their keys: the caller gives them
// back. What asynq has asked for its handlers have begun then.
func (s *Server) Unbegun() []string {
	keys := s.fetcher.takeAll()
	s.slots.settle()
	return keys
}

// Shutdown waits for the handlers, as long as the configuration says, and ends the server. Whoever calls it, it has
// ended then: asynq's own does not wait for one that is under way.
func (s *Server) Shutdown() {
	s.end.Do(func() {
		s.fetcher.waitNoMore()
		s.asynq.Shutdown()
	})
}

// Do does steps to the records of tasks, and returns what came of each when Redis has answered. Those that are
// asked for together are done in their order, in one round trip for each queue. If ctx ends first they may be done later.
func (c *Client) Do(ctx context.Context, wanted []Step) []Answer { return c.steps.do(ctx, wanted) }

// Sure reports whether a task is surely this process's for ten seconds yet, whatever other workers do and whoever has
// slept meanwhile. If not it may still be: a step of Do can tell.
func (c *Client) Sure(key string) bool { return c.claims.sure(key) }

// Fresh reports whether a task was fetched within the last second, and nobody had done anything to it until then, as far as
// Config.TouchedFields tell.
func (c *Client) Fresh(key string) bool { return c.claims.isFresh(key) }

// Owner is the token in the record of a task that this process has fetched, as long as it is this process's. It is "" for
// others.
func (c *Client) Owner(key string) string { return c.claims.owner(key) }

// Note is for a task that is about to end, or to be tried again: the script that does that, whichever it is, writes the notes.
func (c *Client) Note(key string, notes Notes) { c.claims.note(key, notes) }

// broker is what an asynq server uses as its Redis client.
func (c *Client) broker(f *fetcher) *broker {
	return &broker{UniversalClient: c.redis, base: c.base, steps: c.steps, fetcher: f}
}

// Wake says that a queue has got a task: one server that waits for tasks of that queue looks for it at once. It may be told
// for nothing, and of any queue.
func (c *Client) Wake(queue string) { c.wakers.wake(queue) }
