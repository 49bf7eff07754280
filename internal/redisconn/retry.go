package redisconn

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// retryHook tries a command again, for a while and with pauses, when Redis is
// away or takes no commands for the state that it is in: it loads its data, is out of
// memory, cannot write to its disk, has become a replica, has lost part of its cluster.
//
// go-redis could be told to try as often by itself, but it would try as long to greet
// a server over a connection that is dead, holding a lock that a shutdown needs; it gives up
// early in a cluster and when no sentinel answers; and it does not know all of these
// states. asynq asks again at once after an error: without the pauses a worker would ask a
// Redis that is full some forty thousand times a second.
type retryHook struct {
	total      time.Duration // from the first failure on
	first, max time.Duration // pauses: they double
}

var _ redis.Hook = retryHook{}

func (retryHook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (r retryHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if greets(cmd) {
			return next(ctx, cmd)
		}
		return r.try(ctx, func() error { return next(ctx, cmd) })
	}
}

func (r retryHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if slices.ContainsFunc(cmds, greets) {
			return next(ctx, cmds)
		}
		return r.try(ctx, func() error { return next(ctx, cmds) })
	}
}

// greets reports whether a command is part of opening a connection: if that fails, another
// connection is opened for the command that wanted one.
func greets(cmd redis.Cmder) bool {
	return slices.Contains([]string{"hello", "auth", "select", "client", "readonly"}, cmd.Name())
}

func (r retryHook) try(ctx context.Context, do func() error) error {
	err := do()
	if !mayPass(err) {
		return err
	}
	end := time.Now().Add(r.total)
	for pause := r.first; mayPass(err) && time.Now().Before(end); pause = min(2*pause, r.max) {
		jittered := pause/2 + rand.N(pause/2+1) //nolint:gosec // a pause needs no cryptographic chance
		select {
		case <-ctx.Done():
			return err
		case <-time.After(jittered):
		}
		if isDenied(err) {
			return err // it is not mended within a moment, but nobody shall ask too fast
		}
		err = do()
	}
	return err
}

// mayPass reports whether a command failed for what state Redis or the network is in, and
// not for what the command is.
func mayPass(err error) bool {
	var reply redis.Error
	switch {
	case err == nil, errors.Is(err, redis.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case !errors.As(err, &reply):
		return true
	}
	full := strings.HasPrefix(reply.Error(), "ERR max number of clients")
	return full || isDenied(err) || slices.Contains(states, replyCode(err))
}

// states are the codes of the replies that have nothing to do with the command.
var states = []string{"OOM", "MISCONF", "READONLY", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "LOADING", "BUSY"}

// isDenied reports whether Redis does not let our user do this.
func isDenied(err error) bool {
	return slices.Contains([]string{"NOPERM", "NOAUTH", "WRONGPASS"}, replyCode(err))
}

func replyCode(err error) string {
	var reply redis.Error
	if !errors.As(err, &reply) {
		return ""
	}
	code, _, _ := strings.Cut(reply.Error(), " ")
	return code
}

// isReply reports whether err is Redis's own answer: it is there, and does not want to.
func isReply(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply)
}
