package tasks

import (
	"context"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/pauses"
)

// pausing sees to it in a worker that what is paused goes back, and that all parts of a queue are paused as one of them.
type pausing struct {
	redis       redis.UniversalClient
	log         zerolog.Logger
	dispatchers map[string]*dispatcher
	known       map[string]bool // what was paused when it was last looked
	round       int
}

// pausesEvery is how often a worker looks: the script that marks a message as on the wire needs nobody who looks, but what waits
// for a sender does, and what was paused with asynq's tools.
const (
	pausesEvery = 400 * time.Millisecond
	allEvery    = 10 // looks are at all queues, the others at those of mailers that have mail
)

func newPausing(client redis.UniversalClient, log zerolog.Logger, dispatchers map[string]*dispatcher) *pausing {
	return &pausing{redis: client, log: log, dispatchers: dispatchers, known: map[string]bool{}}
}

func (p *pausing) run(ctx context.Context) {
	every(ctx, pausesEvery, func() {
		if err := p.look(ctx); err != nil && ctx.Err() == nil {
			p.log.Debug().Err(err).Msg("cannot ask what is paused: trying again")
		}
	})
}

func (p *pausing) look(ctx context.Context) error {
	paused, err := pauses.Keep(ctx, p.redis, p.names())
	if err != nil {
		return err
	}
	p.say(paused.List())
	for _, d := range p.dispatchers {
		d.pausedMembers(func(mailer string) bool {
			return slices.ContainsFunc(paused.List(), func(one pauses.Pause) bool { return one.Kind() == pauses.KindMailer && one.Mailer == mailer })
		})
	}
	if paused.Any() {
		for _, d := range p.dispatchers {
			d.handed.haltAll(paused.Has)
		}
	}
	return nil
}

// names are asynq's names of the queues to look at.
func (p *pausing) names() []string {
	all := p.round%allEvery == 0
	p.round++
	var names []string
	for mailer, d := range p.dispatchers {
		if all || mailer == "" || d.servers.Awake() {
			names = append(names, d.queueNames()...)
		}
	}
	return names
}

// say logs what has been paused, and what goes on.
func (p *pausing) say(list []pauses.Pause) {
	now := map[string]bool{}
	for _, one := range list {
		name := one.String()
		if now[name] = true; !p.known[name] {
			line := p.log.Warn().Str("what", name).Str("by", one.By).Time("since", one.At)
			if one.Reason != "" {
				line = line.Str("reason", one.Reason)
			}
			line.Msg("paused: its mail waits until somebody resumes it")
		}
	}
	for name := range p.known {
		if !now[name] {
			p.log.Info().Str("what", name).Msg("resumed")
		}
	}
	p.known = now
}
