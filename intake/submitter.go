package intake

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/rate"
	"github.com/mailpouch/mailpouch/internal/ratelimit"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// Submitter hands over what clients hand in, as far as their keys let them. It may be used by several goroutines.
type Submitter struct {
	queue *tasks.Queue
	redis redis.UniversalClient
	keys  atomic.Pointer[Keys]

	mu       sync.Mutex
	limiters map[string]*limiter // by the names of keys
}

// New returns a Submitter that hands over to a queue in a Redis.
func New(client redis.UniversalClient, queue *tasks.Queue, keys *Keys) *Submitter {
	s := &Submitter{queue: queue, redis: client, limiters: map[string]*limiter{}}
	s.SetKeys(keys)
	return s
}

// SetKeys replaces the keys.
func (s *Submitter) SetKeys(keys *Keys) { s.keys.Store(keys) }

// Current returns a key as it is now, by its secret: nil if it was taken away since somebody has shown that.
func (s *Submitter) Current(key *Key) *Key { return s.keys.Load().current(key.Hash) }

// Find returns the key with that secret, nil if there is none.
func (s *Submitter) Find(secret string) *Key { return s.keys.Load().Find(secret) }

// Submit hands a message over and returns its ID, as tasks.Queue.Enqueue does: when it returns nil, Redis has the message. key is the
// client's, nil if it is trusted without one. Of the options the client may have set what Options says.
//
// An error is one of Options, a *RateError, or one of Enqueue.
func (s *Submitter) Submit(ctx context.Context, key *Key, m *mailer.EmailMessage, o mailer.Options) (id string, err error) {
	if o, err = s.Options(key, m, o); err != nil {
		return "", err
	}
	if err := s.Reserve(ctx, key, 1); err != nil {
		return "", err
	}
	return s.queue.With(o).Enqueue(ctx, m)
}

// Options returns how a client's message is handed over: with what it has chosen, with the mailer and queue of the key, the key's tag,
// and with an idempotency key that is the key's alone. The error is a *NotAllowedError, one of the options, or one of the message.
func (s *Submitter) Options(key *Key, m *mailer.EmailMessage, o mailer.Options) (mailer.Options, error) {
	for _, tag := range o.Tags {
		if strings.HasPrefix(tag, tagPrefix) {
			return o, &NotAllowedError{Field: string(ChooseTags), Value: tag, Reason: "begins with " + tagPrefix + ", which only keys' own tags do"}
		}
	}
	if key != nil && strings.TrimSpace(o.IdempotencyKey) != "" {
		o.IdempotencyKey = key.own(o.IdempotencyKey)
	}
	if err := o.Validate(); err != nil || key == nil {
		return o, err
	}
	for _, c := range chosen(o) {
		if !key.May(c.choice) {
			return o, &NotAllowedError{Field: string(c.choice), Value: c.value, Reason: "cannot be chosen with this key"}
		}
	}
	if err := key.checkSenders(m); err != nil {
		return o, err
	}
	o.Using, o.Queue = cmp.Or(o.Using, key.Mailer), cmp.Or(o.Queue, key.Queue)
	o.Tags = append(slices.Clip(o.Tags), key.Tag())
	return o, o.Validate()
}

// own is an idempotency key of the key's client: no other client can have it.
func (k *Key) own(idempotencyKey string) string {
	const most = 255
	own := k.Name + ":" + idempotencyKey
	if len(own) > most {
		hash := hashOf(idempotencyKey)
		own = fmt.Sprintf("%s:%x", k.Name, hash[:])
	}
	return own
}

// what is chosen by options.
type choiceMade struct {
	choice Choice
	value  string
}

func chosen(o mailer.Options) (all []choiceMade) {
	for _, c := range []struct {
		is     bool
		choice Choice
		value  string
	}{
		{o.Queue != "", ChooseQueue, o.Queue},
		{o.Using != "", ChooseMailer, o.Using},
		{o.Mailing != "", ChooseMailing, o.Mailing},
		{len(o.Tags) > 0, ChooseTags, strings.Join(o.Tags, ", ")},
		{o.ProcessIn != 0, ChooseSchedule, o.ProcessIn.String()},
		{!o.ProcessAt.IsZero(), ChooseSchedule, o.ProcessAt.Format(time.RFC3339)},
	} {
		if c.is {
			all = append(all, choiceMade{c.choice, c.value})
		}
	}
	return all
}

// checkSenders refuses a message that is from somebody who the key does not let it be from.
func (k *Key) checkSenders(m *mailer.EmailMessage) error {
	if len(k.From) == 0 {
		return nil
	}
	senders, err := m.Senders()
	if err != nil {
		return err
	}
	if !saysFrom(m) { // who the program's own mail is from would stand there
		return &NotAllowedError{Field: "from", Reason: "is missing: with this key a message says whom it is from"}
	}
	for _, sender := range senders {
		if !k.From.allow(sender) {
			return &NotAllowedError{Field: "from", Value: sender, Reason: "is not among the senders of this key: " + strings.Join(k.From, ", ")}
		}
	}
	return nil
}

// saysFrom reports whether a message says in its header whom it is from, and so does its envelope, if not with the null sender.
func saysFrom(m *mailer.EmailMessage) bool {
	return m.FromEmail != "" || m.RawHeader("From") != "" && m.Headers["Return-Path"] == "<>"
}

// limiter keeps to the rate of a key.
type limiter struct {
	*ratelimit.Limiter
	rate string
}

// patience is how long messages wait for the rate of their key before they are refused.
const patience = 10 * time.Second

// Reserve waits until the rate of the key lets so many messages in. If that takes longer than ten seconds the error is a *RateError, and a
// *NotAllowedError if it never does. A Redis that does not answer is a *mailer.SendError of the class Unavailable.
func (s *Submitter) Reserve(ctx context.Context, key *Key, messages int) error {
	if key == nil || len(key.Rate) == 0 {
		return nil
	}
	for _, limit := range key.Rate {
		if messages > mostAtOnce(limit) {
			return &NotAllowedError{Field: "rate", Value: strconv.Itoa(messages), Reason: fmt.Sprintf("messages at once are more than the rate of the key (%s) ever lets in: hand in fewer", limit)}
		}
	}
	l, until := s.limiter(key), time.Now().Add(patience)
	for taken := 0; taken < messages; {
		n, wait, err := l.Try(ctx, messages-taken)
		switch {
		case err != nil:
			l.GiveBack(taken, 0)
			return redisconn.NotQueued(ctx, err)
		case n > 0:
			taken += n
			continue
		case time.Now().Add(wait).After(until):
			l.GiveBack(taken, 0)
			return &RateError{Rate: l.rate, RetryAfter: wait}
		}
		if err := sleep(ctx, wait); err != nil {
			l.GiveBack(taken, 0)
			return redisconn.NotQueued(ctx, err)
		}
	}
	return nil
}

// mostAtOnce is how many messages a limit lets in that nobody has used before, while they wait.
func mostAtOnce(l rate.Limit) int {
	if l.Burst == 0 {
		return l.Most
	}
	return l.Burst + int(math.Ceil(l.PerSecond()*patience.Seconds()))
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Submitter) limiter(key *Key) *limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, text := s.limiters[key.Name], key.Rate.String()
	if l == nil || l.rate != text {
		l = &limiter{rate: text, Limiter: ratelimit.New(s.redis, ratelimit.Config{Mailer: key.Tag(), Rates: rate.Rates{Messages: key.Rate}, Fresh: true})}
		s.limiters[key.Name] = l
	}
	return l
}
