package tasks

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// handsOverAll hands messages over, in one of the two ways.
func handsOverAll(ctx context.Context, q *Queue, messages []*mailer.EmailMessage, prepared bool) []mailer.Result {
	results := make([]mailer.Result, len(messages))
	note := func(reports []mailer.Report) {
		for _, r := range reports {
			results[r.Index] = r.Result
		}
	}
	if !prepared {
		q.SendBatch(ctx, mailer.Batch{Messages: messages, Report: note})
		return results
	}
	p := q.Prepare(ctx, mailer.Batch{Messages: messages})
	p.Known(note)
	p.Send(ctx, note)
	return results
}

// Messages that are handed over together, with a task each, share round trips.
func TestQueue_together(t *testing.T) {
	t.Parallel()
	const n = 200
	for name, tt := range map[string]struct {
		cfg       QueueConfig
		options   Options
		size      int // of a body
		most      int // scripts
		scheduled bool
	}{
		"small ones":       {most: 4},
		"in parts":         {cfg: QueueConfig{Shards: 3}, most: 6},
		"big ones":         {size: 40_000, most: 20},
		"with events":      {cfg: QueueConfig{Events: EventLog{On: true}}, most: 4},
		"later":            {options: Options{ProcessIn: time.Hour}, most: n, scheduled: true},
		"under a key each": {options: Options{Unique: time.Hour}, most: n},
	} {
		for _, prepared := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, prepared %v", name, prepared), func(t *testing.T) {
				t.Parallel()
				s := redistest.Start(t, redistest.Options{})
				client := s.Client(t)
				var scripts, biggest atomic.Int64
				client.AddHook(cut{func(cmds []redis.Cmder) bool {
					for _, c := range cmds {
						if c.Name() != "evalsha" {
							continue
						}
						scripts.Add(1)
						size := int64(0)
						for _, arg := range c.Args() {
							data, _ := arg.([]byte)
							size += int64(len(data))
						}
						biggest.Store(max(biggest.Load(), size))
					}
					return false
				}})
				cfg := tt.cfg
				cfg.BulkSize = 1
				q := NewQueue(client, cfg).With(tt.options)
				messages := make([]*mailer.EmailMessage, n)
				for i := range messages {
					messages[i] = message(fmt.Sprintf("u%d@example.com", i))
					noise := make([]byte, tt.size)
					_, _ = rand.Read(noise)
					messages[i].Body = fmt.Sprint(i) + base64.StdEncoding.EncodeToString(noise)
				}
				messages[3].Subject = "a\nb"
				messages[150].To = nil
				results := handsOverAll(t.Context(), q, messages, prepared)
				want := map[string]int{}
				for i, r := range results {
					switch {
					case i == 3:
						if !mailer.IsBadInput(r.Err) {
							t.Errorf("the wrong one: %+v", r)
						}
					case i == 150:
						if !r.Skipped {
							t.Errorf("the one for nobody: %+v", r)
						}
					case r.Err != nil || r.TaskID == "":
						t.Fatalf("%d: %+v", i, r)
					default:
						want[r.TaskID] = i
					}
				}
				if got := int(scripts.Load()); got > tt.most+1 || len(want) != n-2 { // it is loaded by the first
					t.Errorf("%d scripts, want %d at most; %d IDs", got, tt.most, len(want))
				}
				if got := int(biggest.Load()); got > asynqbatch.BytesEnqueued+2*tt.size+2000 || tt.size > 0 && got < asynqbatch.BytesEnqueued/2 {
					t.Errorf("a script of %d bytes", got)
				}
				found := 0
				for _, queue := range client.SMembers(t.Context(), wire.QueuesKey).Val() {
					ids := client.LRange(t.Context(), "asynq:{"+queue+"}:pending", 0, -1).Val()
					if tt.scheduled {
						ids = client.ZRange(t.Context(), "asynq:{"+queue+"}:scheduled", 0, -1).Val()
					}
					slices.Reverse(ids) // the first one is taken first
					last := -1
					for _, id := range ids {
						i, ok := want[id]
						if !ok || i < last && !tt.scheduled {
							t.Fatalf("%s: message %d (%v) after %d", id, i, ok, last)
						}
						m, ok := asynqbatch.ReadMessage(client.HGet(t.Context(), asynqbatch.TaskKey(queue, id), "msg").Val())
						p, err := wire.Decode(m.Payload, nil)
						if !ok || err != nil || !slices.Equal(p.Message.To, messages[i].To) {
							t.Fatalf("%s: %+v, %v", id, p, err)
						}
						last = i
						found++
					}
				}
				if found != n-2 {
					t.Errorf("%d tasks", found)
				}
			})
		}
	}
}

// When Redis cannot be told of some, the others are not tried, and each is told apart.
func TestQueue_togetherAway(t *testing.T) {
	t.Parallel()
	for _, prepared := range []bool{false, true} {
		t.Run(fmt.Sprintf("prepared %v", prepared), func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t, redistest.Options{})
			client := s.Client(t)
			var scripts atomic.Int64
			q := NewQueue(client, QueueConfig{BulkSize: 1})
			if _, err := q.Enqueue(t.Context(), message("first@example.com")); err != nil {
				t.Fatal(err)
			}
			client.AddHook(cut{func(cmds []redis.Cmder) bool { return has(cmds, "evalsha", "") && scripts.Add(1) > 2 }})
			var messages []*mailer.EmailMessage
			for i := range 5 * asynqbatch.MostEnqueued {
				messages = append(messages, message(fmt.Sprintf("u%d@example.com", i)))
			}
			got := map[string]int{}
			for i, r := range handsOverAll(t.Context(), q, messages, prepared) {
				switch class := mailer.ClassOf(r.Err); {
				case r.Err == nil:
					got["queued"]++
				case class == mailer.Unknown && errors.Is(r.Err, errCut):
					got["maybe"]++
				case class == mailer.Unavailable:
					got["not"]++
				default:
					t.Errorf("%d: %v", i, r.Err)
				}
			}
			const each = asynqbatch.MostEnqueued
			if want := map[string]int{"queued": 2 * each, "maybe": each, "not": 2 * each}; !maps.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
			if n := client.LLen(t.Context(), "asynq:{default}:pending").Val(); n != 2*each+1 {
				t.Errorf("%d tasks", n)
			}
		})
	}
}
