package intake

import (
	"context"
	"crypto/sha256"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// Item is one of the messages that a client hands in together.
type Item struct {
	Message *mailer.EmailMessage
	Options mailer.Options // what the client has chosen
}

// Result is what became of an Item: its ID, or why it was not handed over, an error as of Submit.
type Result struct {
	ID  string
	Err error
}

// Batch are messages that a client hands in together: they are checked, and ready to be handed over.
type Batch struct {
	submitter *Submitter
	key       *Key
	results   []Result // of each item, with what is wrong
	groups    []group
}

// group are items that are handed over with the same options, and so may share a task.
type group struct {
	options  mailer.Options
	messages []*mailer.EmailMessage
	indexes  []int // of the items
	prepared *tasks.Prepared
}

// Prepare checks messages that a client hands in together, and makes them ready to be handed over: those that have no idempotency key and
// are due now travel in tasks of many, and all others in tasks of their own, for only such a task can be given another time.
// Neither the messages nor their options may be changed until they are handed over.
func (s *Submitter) Prepare(ctx context.Context, key *Key, items []Item) *Batch {
	b := &Batch{submitter: s, key: key, results: make([]Result, len(items))}
	for i, item := range items {
		o, err := s.Options(key, item.Message, item.Options)
		if err != nil {
			b.results[i].Err = err
			continue
		}
		b.add(i, item.Message, o)
	}
	for i := range b.groups {
		g := &b.groups[i]
		g.prepared = s.queue.Prepare(ctx, mailer.Batch{Messages: g.messages, Options: g.options})
		g.prepared.Known(func(all []mailer.Report) { b.note(g, all) })
	}
	return b
}

// add puts an item into the group where it belongs.
func (b *Batch) add(i int, m *mailer.EmailMessage, o mailer.Options) {
	at := -1
	if alone := o.IdempotencyKey != "" || o.Unique != 0 || !o.ProcessAt.IsZero() || o.ProcessIn != 0; !alone {
		at = slices.IndexFunc(b.groups, func(g group) bool { return reflect.DeepEqual(g.options, o) })
	}
	if at < 0 {
		at, b.groups = len(b.groups), append(b.groups, group{options: o})
	}
	g := &b.groups[at]
	g.messages, g.indexes = append(g.messages, m), append(g.indexes, i)
}

// note keeps what is known of items of a group.
func (b *Batch) note(g *group, all []mailer.Report) {
	for _, r := range all {
		b.results[g.indexes[r.Index]] = Result{ID: r.TaskID, Err: r.Err}
	}
}

// Results are what is known of each item: before Submit what is wrong with it.
func (b *Batch) Results() []Result { return b.results }

// atOnce is how many groups are handed over at the same time: they share round trips.
const atOnce = 16

// Submit hands over all that nothing is wrong with. Results has what became of each item then. The error, of which nothing was handed over, is
// one of Reserve.
func (b *Batch) Submit(ctx context.Context) error {
	good := 0
	for _, r := range b.results {
		if r.Err == nil {
			good++
		}
	}
	if err := b.submitter.Reserve(ctx, b.key, good); err != nil {
		return err
	}
	var all errgroup.Group
	all.SetLimit(atOnce)
	for i := range b.groups {
		g := &b.groups[i]
		all.Go(func() error { // each has results of its own
			g.prepared.Send(ctx, func(reports []mailer.Report) { b.note(g, reports) })
			return nil
		})
	}
	return all.Wait()
}

// claimScript gives the key KEYS[1] the value ARGV[1] for at least ARGV[2] milliseconds. It returns 0 if it has another one.
var claimScript = redis.NewScript(`
local was = redis.call("GET", KEYS[1])
if was and was ~= ARGV[1] then return 0 end
redis.call("SET", KEYS[1], ARGV[1], "PX", math.max(redis.call("PTTL", KEYS[1]), tonumber(ARGV[2])))
return 1`)

// Claim notes that a client's idempotency key stands for a request with that content, until the keys that OneOf makes of it are forgotten:
// those of messages that are due at that time or earlier. If it stands for another one the error is a *mailer.IdempotencyError. It
// comes before the first message of the request is handed over, so that a request that was cut off can be made again, and no other one
// in its place.
func (s *Submitter) Claim(ctx context.Context, key *Key, idempotencyKey string, content []byte, due time.Time) error {
	name := ""
	if key != nil {
		name = key.Name
	}
	kept := s.queue.KeyKept(due)
	keys := []string{wire.RequestKey(digest(name, idempotencyKey))}
	done, err := claimScript.Run(ctx, s.redis, keys, fmt.Sprintf("%x", sha256.Sum256(content)), kept.Milliseconds()).Int()
	switch {
	case err != nil:
		return redisconn.NotQueued(ctx, err)
	case done == 0:
		return &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: &mailer.IdempotencyError{Key: idempotencyKey}}
	}
	return nil
}

// OneOf is the idempotency key of the message with that number in a request with a key.
func OneOf(idempotencyKey string, index int) string {
	return fmt.Sprintf("%d of %s", index, digest(idempotencyKey))
}

// digest is a SHA-256 of the parts.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}
