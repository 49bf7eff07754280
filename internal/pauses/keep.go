package pauses

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// Paused is what is paused of some queues.
type Paused struct {
	all    []Pause
	queues map[string]bool // asynq's
}

// Any reports whether something is paused.
func (p Paused) Any() bool { return len(p.all) > 0 || len(p.queues) > 0 }

// List are the pauses, the oldest first.
func (p Paused) List() []Pause { return p.all }

// Has reports whether the tasks of a mailing in one of asynq's queues are paused, those of no mailing if it is "".
func (p Paused) Has(queue, mailing string) bool {
	return p.queues[queue] || mailing != "" && slices.ContainsFunc(p.all, func(o Pause) bool { return o.Mailing == mailing })
}

// Keep makes asynq's queues as paused as they are to be. A queue that was paused, or resumed, with asynq's tools is taken for
// paused, or resumed, in all its parts: those of one mailer if it was paused. A pause of a whole mailer is not ended so, as the
// tools know single queues: its queue is paused again. While nothing is paused it takes one round trip.
func Keep(ctx context.Context, client redis.UniversalClient, names []string) (p Paused, err error) {
	for changed, n := true, 0; changed && n < 3; n++ { // a change that it finds is carried out at once, or by the next one
		if p, changed, err = keep(ctx, client, names); err != nil {
			return Paused{}, redisconn.Unavailable(err)
		}
	}
	return p, nil
}

func keep(ctx context.Context, client redis.UniversalClient, names []string) (p Paused, changed bool, err error) {
	all, some, err := look(ctx, client, names)
	if err != nil {
		return p, false, err
	}
	p = Paused{all: all, queues: map[string]bool{}}
	wanted := map[string]asynqbatch.Wanted{}
	for _, name := range names {
		if w := wantedOf(all, name); w.Queue || len(w.Mailings) > 0 || some[name] {
			wanted[name] = w
			if w.Queue {
				p.queues[name] = true
			}
		}
	}
	if len(wanted) == 0 {
		return p, false, nil
	}
	found, err := asynqbatch.SetPauses(ctx, client, wanted)
	if err != nil {
		return p, false, err
	}
	for name, f := range found {
		if f.By != asynqbatch.ByNobody {
			changed = true
			if err := adopt(ctx, client, all, wire.ParseQueueName(name), f.By); err != nil {
				return p, false, err
			}
		}
		for _, mailing := range f.Back {
			if err := asynqbatch.Return(ctx, client, name, mailing); err != nil {
				return p, false, err
			}
		}
	}
	return p, changed, nil
}

// groupSize is how many queues one command asks for.
const groupSize = 256

// look returns all pauses, and which of the queues may have one in their slots.
func look(ctx context.Context, client redis.UniversalClient, names []string) (all []Pause, some map[string]bool, err error) {
	size := groupSize
	if _, cluster := redisconn.Cluster(client); cluster {
		size = 1
	}
	var fields *redis.MapStringStringCmd
	var counts []*redis.IntCmd
	_, err = client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		fields = pipe.HGetAll(ctx, wire.PausedKey)
		for group := range slices.Chunk(names, size) {
			keys := make([]string, 0, 2*len(group))
			for _, name := range group {
				keys = append(keys, asynqbatch.PausedKey(name), wire.PausesKey(name))
			}
			counts = append(counts, pipe.Exists(ctx, keys...))
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	some = map[string]bool{}
	n := 0
	for group := range slices.Chunk(names, size) {
		if counts[n].Val() > 0 {
			for _, name := range group {
				some[name] = true
			}
		}
		n++
	}
	return read(fields.Val()), some, nil
}

// wantedOf is what is to be paused of one of asynq's queues.
func wantedOf(all []Pause, name string) asynqbatch.Wanted {
	w, parsed := asynqbatch.Wanted{}, wire.ParseQueueName(name)
	for _, p := range all {
		switch {
		case p.Mailing != "":
			w.Mailings = append(w.Mailings, p.Mailing)
		case p.covers(parsed):
			w.Queue, w.Firm = true, w.Firm || p.Queue == ""
		}
	}
	return w
}

// adopt notes what was done to a queue with asynq's tools.
func adopt(ctx context.Context, client redis.UniversalClient, all []Pause, name wire.QueueName, by asynqbatch.By) error {
	if by == asynqbatch.ByPausing {
		p := Pause{Target: Target{Queue: name.Queue, Mailer: mailerOf(name)}, By: AsynqTools, At: time.Now().UTC().Truncate(time.Millisecond)}
		data, err := json.Marshal(p)
		if err != nil {
			return err
		}
		return client.HSetNX(ctx, wire.PausedKey, p.Target.String(), data).Err()
	}
	for _, p := range all {
		if p.Queue != "" && p.covers(name) {
			if err := client.HDel(ctx, wire.PausedKey, p.Target.String()).Err(); err != nil {
				return err
			}
		}
	}
	return nil
}
