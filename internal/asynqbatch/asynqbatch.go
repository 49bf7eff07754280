// Package asynqbatch makes asynq servers that fetch and acknowledge many tasks in one round trip to Redis.
//
// It is made for asynq v0.26.0, and it is the only place that knows asynq's Lua scripts, its key layout and the
// fields of its protocol buffers. asynq fetches one task at a time and acknowledges each by itself: two round trips
// for every task. An asynq server runs its scripts on a Redis client that it is given, so the client is where that
// changes. Of all the scripts that a server runs, three are known here by their keys and arguments:
//
//	fetch a task          for as many tasks as the server has free slots; the next ones wait here until asynq asks
//	acknowledge a task    for all tasks that end at the same moment
//	recover a task        only after its lease was taken over, so that of several servers one does it
//
// A fourth one, which archives a task, loses the numbers by which it would drop others (archive.go), and a task's time-out is
// kept from asynq (timeout.go).
//
// Everything else passes through. What is in Redis before and after is what asynq itself would have left: the same
// keys, lists, leases and numbers. So asynq's client and inspector, asynqmon, asynq's command line, and servers
// without this package work on the same queues and see no difference. A script that is not known any more, in
// another version of asynq, passes through too: that costs speed and the protection of a recovered task, never mail.
// A test fails then.
//
//	asynq.Server -> broker -+-> fetcher       (slots: how many tasks to fetch)
//	                        +-> acknowledger <- Client.Acknowledge, by whoever knows first that a task is done
//	                        +-> takeOver
//	                        +-> Redis
package asynqbatch

import (
	"context"
	"sync"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
)

// Config says what a Client adds to asynq.
type Config struct {
	// LostField is the field of a task's record in which its lost leases are counted. asynq leaves fields alone
	// that it does not know.
	LostField string

	// Fetched is called for each task before asynq gets it, with how many leases the task has lost.
	Fetched func(key string, lost int)

	// Asleep reports whether a queue is known to have nothing to do: then asynq is told so, and Redis is not asked.
	// Took is called when a task is taken from a queue. Both may be nil.
	Asleep func(queue string) bool
	Took   func(queue string)

	Logger zerolog.Logger
}

// Client makes asynq servers on one Redis.
type Client struct {
	redis  redis.UniversalClient
	acks   *acknowledger
	claims *claims
	cut    *cut
	cfg    Config
}

// New returns a Client on the given Redis, which it does not close.
func New(client redis.UniversalClient, cfg Config) *Client {
	return &Client{redis: client, acks: newAcknowledger(client), claims: newClaims(), cut: newCut(), cfg: cfg}
}

// TaskKey is where asynq keeps the record of a task.
func TaskKey(queue, id string) string { return "asynq:{" + queue + "}:t:" + id }

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
	f := newFetcher(c.redis, s, cfg.Eager, c.cfg.LostField)
	f.limit = cfg.Limit
	f.note = c.claims.add
	return &Server{asynq: asynq.NewServerFromRedisClient(cutClient{c.broker(f), c.cut.off}, cfg.Config), slots: s, fetcher: f}
}

// Start starts to fetch tasks and to give them to the handler.
func (s *Server) Start(h asynq.Handler) error { return s.asynq.Start(s.slots.handler(h)) }

// Stop makes the server fetch no more tasks. What no handler has begun goes back to its queue. Whoever calls it, it
// returns when that is done.
func (s *Server) Stop() {
	s.stop.Do(func() {
		s.asynq.Stop()
		s.fetcher.close(context.Background())
	})
}

// Unbegun takes the tasks that were fetched and that asynq has not asked for yet, and returns their keys: the caller gives them
// back. What asynq has asked for its handlers have begun then.
func (s *Server) Unbegun() []string {
	keys := s.fetcher.takeAll()
	s.slots.settle()
	return keys
}

// Shutdown waits for the handlers, as long as the configuration says, and ends the server. Whoever calls it, it has
// ended then: asynq's own does not wait for one that is under way.
func (s *Server) Shutdown() { s.end.Do(s.asynq.Shutdown) }

// InHand is how many tasks the server has fetched that no handler has ended.
func (s *Server) InHand() int { return s.slots.taken() + s.fetcher.waiting() }

// Acknowledge acknowledges the tasks with these keys before their handlers return, and returns an error for each. It
// returns when Redis has answered. After an error other than ErrNotFetched a task may have ended all the same.
func (c *Client) Acknowledge(keys []string) []error { return c.acks.acknowledge(keys) }

// Forget forgets a task that nobody will acknowledge any more but asynq. A handler calls it when it returns.
func (c *Client) Forget(key string) { c.acks.forget(key) }

// broker is the Redis client that an asynq server uses. asynq offers no other place where its scripts can be changed.
type broker struct {
	redis.UniversalClient
	client  *Client
	fetcher *fetcher
}

func (c *Client) broker(f *fetcher) *broker { return &broker{c.redis, c, f} }

// EvalSha implements redis.Scripter.
func (b *broker) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	if b.fetcher.waiting() == 0 { // what was fetched is taken
		if answer := answerAsleep(b.client.cfg.Asleep, keys, args); answer != nil {
			return answer
		}
	}
	if b.client.claims.settled(keys) {
		return redis.NewCmdResult("OK", nil)
	}
	switch {
	case fetchesTask(keys, args):
		task, err := b.fetcher.fetch(ctx, keys, args[0], args[1])
		if err != nil {
			return redis.NewCmdResult(nil, err)
		}
		if b.client.cfg.Took != nil {
			queue, _ := queueOf(keys[fetchPending])
			b.client.cfg.Took(queue)
		}
		b.client.acks.fetched(task)
		if b.client.cfg.Fetched != nil {
			b.client.cfg.Fetched(task.key(), task.lost)
		}
		return redis.NewCmdResult(withoutTimeout(task.message), nil)
	case endsTask(keys, args):
		return redis.NewCmdResult("OK", b.client.acks.asynqEnds(ctx, keys, args))
	case recoversTask(ctx, keys):
		lost, mine, err := takeOver(ctx, b.UniversalClient, keys[recoverLease], keys[recoverTask], args[0], b.client.cfg.LostField)
		if err != nil || !mine {
			return redis.NewCmdResult("OK", err)
		}
		b.client.cfg.Logger.Warn().Any("task", args[0]).Int("lost_leases", lost).
			Msg("the worker that had this task died, or was cut off from Redis: another one goes on with it")
	}
	return b.UniversalClient.EvalSha(ctx, sha, keys, changed(keys, args)...)
}

// Eval implements redis.Scripter, for a script that Redis does not have yet.
func (b *broker) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	return b.UniversalClient.Eval(ctx, script, keys, changed(keys, args)...)
}

// changed are the arguments with which a script of asynq's that passes through is run.
func changed(keys []string, args []any) []any { return untrimmed(keys, withTimeouts(keys, args)) }
