package redisconn

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/mailer"
)

// ForProgram returns the client of a program that hands mail over, so that its commands end when their contexts do,
// whatever the options of the given one say, and it is known of each whether it may have been done. It adds a hook to the
// given one, which only concerns hand-overs. Commands go to it through what via makes of it.
func ForProgram(client redis.UniversalClient, via ...func(redis.UniversalClient) redis.UniversalClient) redis.UniversalClient {
	switch c := client.(type) {
	case programClient:
		return c
	case *redis.Client:
		c.AddHook(newWatchHook(c))
	case *redis.ClusterClient:
		// A node that is connected already is not watched: then what it was sent counts as done, unless it answers.
		c.OnNewNode(func(node *redis.Client) { node.AddHook(newWatchHook(node)) })
	}
	given := client
	for _, through := range via {
		client = through(client)
	}
	return programClient{client, given}
}

// watchHook does the tries of a script of a hand-over, and notes what becomes of each: go-redis keeps the earlier ones to
// itself. A script that was written, and then tried again over a connection that is refused, looks as if it was
// never sent.
type watchHook struct {
	tries      int
	first, max time.Duration // pauses: they double
}

func newWatchHook(c *redis.Client) watchHook {
	o := c.Options()
	return watchHook{tries: 1 + o.MaxRetries, first: o.MinRetryBackoff, max: o.MaxRetryBackoff}
}

func (watchHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (w watchHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		h := watching(ctx)
		if h == nil || !slices.Contains([]string{"evalsha", "eval"}, cmd.Name()) {
			return next(ctx, cmd)
		}
		pause := w.first
		for n := 1; ; n++ {
			h.begins()
			err := next(ctx, once{cmd})
			if h.tried(err); n >= w.tries || !triedAgain(err) {
				return err
			}
			select {
			case <-ctx.Done():
				return err
			case <-time.After(pause/2 + rand.N(pause/2+1)): //nolint:gosec // a pause needs no cryptographic chance
			}
			pause = min(2*pause, w.max)
		}
	}
}

// ProcessPipelineHook sees how a connection is greeted that is opened for a script.
func (watchHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if h := watching(ctx); h != nil && err != nil && slices.ContainsFunc(cmds, greets) {
			h.refused(err)
		}
		return err
	}
}

// once is a command that go-redis tries once.
type once struct{ redis.Cmder }

// NoRetry implements redis.Cmder.
func (once) NoRetry() bool { return true }

// triedAgain reports whether go-redis tries a command again after this error.
func triedAgain(err error) bool {
	if !mayPass(err) {
		return false
	}
	return !slices.Contains([]string{"OOM", "MISCONF", "NOREPLICAS", "BUSY"}, replyCode(err)) && !isDenied(err)
}

// Handover is what is known of one hand-over.
type Handover struct {
	mu      sync.Mutex
	program bool  // the client is one of ForProgram
	watched bool  // each try is noted
	greeted error // why a connection could not be opened for the try that is under way
	written bool  // a try may have been done
	err     error // of the last command
}

type handoverKey struct{}

// Watch returns a context for the commands of one hand-over.
func Watch(ctx context.Context) (context.Context, *Handover) {
	h := new(Handover)
	return context.WithValue(ctx, handoverKey{}, h), h
}

func watching(ctx context.Context) *Handover {
	h, _ := ctx.Value(handoverKey{}).(*Handover)
	return h
}

// Calls joins hand-overs that share a round trip: see asynqbatch.Calls.
type Calls struct{}

// Joint returns the context for a round trip of several hand-overs, which over tells what became of it.
func (Calls) Joint(calls []context.Context) (ctx context.Context, over func()) {
	ctx, joint := Watch(context.Background())
	return ctx, func() {
		joint.mu.Lock()
		watched, greeted, written := joint.watched, joint.greeted, joint.written
		joint.mu.Unlock()
		for _, call := range calls {
			if h := watching(call); h != nil {
				h.mu.Lock()
				h.watched, h.greeted, h.written = h.watched || watched, greeted, h.written || written
				h.mu.Unlock()
			}
		}
	}
}

// Dropped notes that nothing was written for a hand-over that has ended.
func (Calls) Dropped(call context.Context) {
	if h := watching(call); h != nil {
		h.begins()
	}
}

func (h *Handover) begins() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watched, h.greeted = true, nil
}

// refused notes that the connection for a try could not be used.
func (h *Handover) refused(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.greeted = err
}

// tried notes how one try has ended.
func (h *Handover) tried(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil && h.greeted == nil && !neverWritten(err) {
		h.written = true
	}
}

// failed notes how a command has ended that queues nothing.
func (h *Handover) failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
}

// ended notes how a script has ended, after all its tries.
func (h *Handover) ended(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
	if err != nil && !h.watched && !isReply(err) {
		h.written = true // nobody has looked
	}
}

// left notes that a script was left to itself.
func (h *Handover) left(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.written, h.err = true, err
}

// neverWritten reports whether a command with this error was certainly not done: Redis has refused it, or there was no
// connection to write it to.
func neverWritten(err error) bool {
	var network *net.OpError
	switch {
	case isReply(err):
		return true
	case errors.As(err, &network):
		return network.Op == "dial"
	}
	waited := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) // for a connection
	return waited || errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, redis.ErrPoolExhausted) || errors.Is(err, redis.ErrClosed)
}

// Failed makes the error of a hand-over that has failed with err: a SendError of class Unknown if the message may have
// been queued, and of class Unavailable if it was not. Of a client that is not one of ForProgram nothing is known, and the
// class is Unavailable.
func (h *Handover) Failed(ctx context.Context, err error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		err = h.err // asynq keeps the text alone
	}
	if !h.program {
		return Unavailable(err)
	}
	if h.written {
		err = fmt.Errorf("the message may have been queued (to hand it over again is safe with an idempotency key): %w", within(ctx, err))
		return &mailer.SendError{Class: mailer.Unknown, Step: step, Err: err}
	}
	return NotQueued(ctx, err)
}

// NotQueued is the error of a hand-over that has failed before anything was queued.
func NotQueued(ctx context.Context, err error) error {
	return &mailer.SendError{Class: mailer.Unavailable, Step: step, Err: fmt.Errorf("not queued: %w", within(ctx, err))}
}

// within is the cause of an error, with that of the context if it has ended.
func within(ctx context.Context, err error) error {
	err = cause(err)
	if ended := ctx.Err(); ended != nil && !errors.Is(err, ended) {
		return fmt.Errorf("%w: %w", ended, err)
	}
	return err
}

// ours notes that the client is one of ForProgram.
func (h *Handover) ours() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.program = true
}

// programClient is a client whose commands end with their contexts. go-redis regards a deadline if it is told to, and
// never that a context is cancelled. A command that is left to itself may still be done.
type programClient struct {
	redis.UniversalClient
	given redis.UniversalClient // to ForProgram
}

// Cluster returns the client of a cluster, also if ForProgram was called with it, and reports whether it is one: a command, a
// script and a transaction there may only have keys of one slot, and each master has scripts of its own.
func Cluster(client redis.UniversalClient) (*redis.ClusterClient, bool) {
	if c, ok := client.(programClient); ok {
		client = c.given
	}
	cluster, ok := client.(*redis.ClusterClient)
	return cluster, ok
}

// grace is how long the answer may come after its context has ended: go-redis ends at a deadline by itself.
const grace = 20 * time.Millisecond

// Within calls do, and returns what that returns, or the error of ctx when that ends before.
func Within[T any](ctx context.Context, do func() (T, error)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	if ctx.Done() == nil {
		return do()
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := do()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-done:
		return r.value, r.err
	case <-time.After(grace):
		return none, ctx.Err()
	}
}

// script runs a script, which is what puts a message into the queue.
func (c programClient) script(ctx context.Context, run func() (any, error)) *redis.Cmd {
	h := watching(ctx)
	if h == nil {
		value, err := Within(ctx, run)
		return redis.NewCmdResult(value, err)
	}
	h.ours()
	begun := ctx.Err() == nil
	var ended sync.Once // one of the two says how it was
	value, err := Within(ctx, func() (any, error) {
		value, err := run()
		ended.Do(func() { h.ended(err) })
		return value, err
	})
	ended.Do(func() {
		if begun {
			h.left(err)
		} else {
			h.failed(err)
		}
	})
	return redis.NewCmdResult(value, err)
}

func (c programClient) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	return c.script(ctx, func() (any, error) { return c.UniversalClient.EvalSha(ctx, sha, keys, args...).Result() })
}

func (c programClient) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	return c.script(ctx, func() (any, error) { return c.UniversalClient.Eval(ctx, script, keys, args...).Result() })
}

func (c programClient) SAdd(ctx context.Context, key string, members ...any) *redis.IntCmd {
	n, err := Within(ctx, func() (int64, error) { return c.UniversalClient.SAdd(ctx, key, members...).Result() })
	if h := watching(ctx); h != nil { // the queue's name comes before the message
		h.ours()
		h.failed(err)
	}
	return redis.NewIntResult(n, err)
}

func (c programClient) HGet(ctx context.Context, key, field string) *redis.StringCmd {
	return redis.NewStringResult(Within(ctx, func() (string, error) { return c.UniversalClient.HGet(ctx, key, field).Result() }))
}

func (c programClient) Ping(ctx context.Context) *redis.StatusCmd {
	return redis.NewStatusResult(Within(ctx, func() (string, error) { return c.UniversalClient.Ping(ctx).Result() }))
}

func (c programClient) SMembers(ctx context.Context, key string) *redis.StringSliceCmd {
	return redis.NewStringSliceResult(Within(ctx, func() ([]string, error) { return c.UniversalClient.SMembers(ctx, key).Result() }))
}

func (c programClient) Pipelined(ctx context.Context, fill func(redis.Pipeliner) error) ([]redis.Cmder, error) {
	return Within(ctx, func() ([]redis.Cmder, error) { return c.UniversalClient.Pipelined(ctx, fill) })
}
