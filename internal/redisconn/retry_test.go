package redisconn

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
)

// reply is an error that Redis answers with.
type reply string

func (r reply) Error() string { return string(r) }
func (reply) RedisError()     {}

func TestRetryHook(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name         string
		cmd          []any
		err          error
		least, most  int // tries
		fewest, last time.Duration
	}{
		{"network", []any{"get", "a"}, io.EOF, 60, 100, 30 * time.Second, 31 * time.Second},
		{"out of memory", []any{"evalsha", "a"}, reply("OOM command not allowed"), 60, 100, 30 * time.Second, 31 * time.Second},
		{"too many clients", []any{"get", "a"}, reply("ERR max number of clients reached"), 60, 100, 30 * time.Second, 31 * time.Second},
		{"not allowed", []any{"get", "a"}, reply("NOPERM this user has no permissions"), 1, 1, 25 * time.Millisecond, 50 * time.Millisecond},
		{"wrong command", []any{"get", "a"}, reply("ERR unknown command"), 1, 1, 0, 0},
		{"script not there", []any{"evalsha", "a"}, reply("NOSCRIPT No matching script"), 1, 1, 0, 0},
		{"nothing there", []any{"get", "a"}, redis.Nil, 1, 1, 0, 0},
		{"client closed", []any{"get", "a"}, redis.ErrClosed, 1, 1, 0, 0},
		{"cancelled", []any{"get", "a"}, context.Canceled, 1, 1, 0, 0},
		{"greeting", []any{"hello", "3"}, io.EOF, 1, 1, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := retryHook{total: 30 * time.Second, first: 50 * time.Millisecond, max: 500 * time.Millisecond}
				tries, start := 0, time.Now()
				cmd := redis.NewCmd(t.Context(), tt.cmd...)
				err := p.ProcessHook(func(context.Context, redis.Cmder) error { tries++; return tt.err })(t.Context(), cmd)
				if took := time.Since(start); !errors.Is(err, tt.err) || tries < tt.least || tries > tt.most || took < tt.fewest || took > tt.last {
					t.Errorf("%d tries in %v, %v", tries, took, err)
				}
				tries = 0
				pipeline := p.ProcessPipelineHook(func(context.Context, []redis.Cmder) error { tries++; return tt.err })
				if err := pipeline(t.Context(), []redis.Cmder{cmd}); !errors.Is(err, tt.err) || tries < tt.least || tries > tt.most {
					t.Errorf("pipeline: %d tries, %v", tries, err)
				}
			})
		})
	}
}

func TestRetryHook_recovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := retryHook{total: 30 * time.Second, first: 50 * time.Millisecond, max: 500 * time.Millisecond}
		tries := 0
		do := func() error {
			if tries++; tries < 5 {
				return io.EOF
			}
			return nil
		}
		if err := p.try(t.Context(), do); err != nil || tries != 5 {
			t.Errorf("%d tries, %v", tries, err)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := p.try(short, func() error { return io.EOF }); !errors.Is(err, io.EOF) || time.Since(start) != time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}
