package tasks

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/find"
	"github.com/mailpouch/mailpouch/internal/history"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// MessageState is where a message is, or what became of it.
type MessageState string

// The states. A message in one of the first six has not ended.
const (
	StateWaiting   MessageState = "waiting"         // in its queue: a worker takes it when it is its turn
	StateScheduled MessageState = "scheduled"       // it is due later
	StatePaused    MessageState = "paused"          // its mailing is, and it waits until that is resumed (NewPauses)
	StateRetry     MessageState = "retry"           // a try has failed, and there will be another one
	StateInHand    MessageState = "in hand"         // a worker has it
	StateOnWire    MessageState = "on the wire"     // and is about to send it, or may have sent it
	StateSent      MessageState = "sent"            // the relay has accepted it
	StateSkipped   MessageState = "skipped"         // it had no recipients
	StateSilent    MessageState = "failed silently" // its one try has failed, and it was handed over so (FailSilently)
	StateCancelled MessageState = "cancelled"       // taken back before it was on the wire
	StateDead      MessageState = "dead letter"     // it could not be delivered, and is kept for a person
	StateReplayed  MessageState = "replayed"        // a dead letter that was queued again, as the task that Reply names
	StateDeleted   MessageState = "deleted"         // a dead letter that a person has deleted
	StateSeveral   MessageState = "several"         // a task of many messages, of which not all are in one state
	StateUnknown   MessageState = "unknown"         // there is no such message, or it has ended before Status.Since
)

// Ended reports whether nothing more will be done about the message by itself.
func (s MessageState) Ended() bool {
	switch s {
	case StateWaiting, StateScheduled, StatePaused, StateRetry, StateInHand, StateOnWire, StateSeveral, StateUnknown:
		return false
	}
	return true
}

// Status is what is known of a message. What is not known is zero. Addresses are masked.
type Status struct {
	State     MessageState `json:"state"`
	ID        string       `json:"id,omitempty"` // as Enqueue has returned it
	MessageID string       `json:"message_id,omitempty"`
	Queue     string       `json:"queue,omitempty"`  // as the producer named it
	Mailer    string       `json:"mailer,omitempty"` // "" for the default one
	Mailing   string       `json:"mailing,omitempty"`
	Tags      []string     `json:"tags,omitempty"`

	// To are the recipients: the first ten of as many as Recipients says.
	To         []string `json:"to,omitempty"`
	Recipients int      `json:"recipients,omitempty"`

	Due   time.Time `json:"due,omitzero"` // when it was to be sent first; of what is to be tried again, when that is
	At    time.Time `json:"at,omitzero"`  // when it has ended
	Tries int       `json:"tries,omitempty"`

	// Reply is the relay's reply to a message that was sent. Of one that was not it is why: of StateRetry the last error. Of
	// StateReplayed it is the ID of the new task.
	Reply string `json:"reply,omitempty"`

	// Parts are the messages of a task of many, or what has come of the message as tasks of their own: the recipients that
	// were refused, and what a replay has made of it.
	Parts []Status `json:"parts,omitempty"`

	// Kept is how long the history has what has ended, and Since from when on it is complete: it has not kept longer, or the
	// oldest records had to go (History.Size). Both are zero if no history is kept. They are set in what Status returns,
	// not in Parts.
	Kept  time.Duration `json:"-"`
	Since time.Time     `json:"since,omitzero"`
}

// Status returns what is known of a message by the ID of its task, its own ID in a task of many, or its Message-ID. It is
// StateUnknown if it is neither in a queue nor in the history. With the ID of a task of many messages it is their state, if
// all have the same.
//
// What waits is read from its task. What has ended is found in the history, and a Message-ID in what waits, by looking through
// it: that takes Redis about a second for a million messages, in small pieces. It is for the questions of people.
func (q *Queue) Status(ctx context.Context, id string) (Status, error) {
	return NewLookup(q.redis).Status(ctx, id)
}

// History is as Lookup.History.
func (q *Queue) History(ctx context.Context, s Search) (Found, error) {
	return NewLookup(q.redis).History(ctx, s)
}

// Lookup finds messages, wherever they are, in all queues of a Redis.
type Lookup struct{ redis redis.UniversalClient }

// NewLookup returns a Lookup in the given Redis, which it does not close.
func NewLookup(client redis.UniversalClient) *Lookup { return &Lookup{client} }

// Status is as Queue.Status.
func (l *Lookup) Status(ctx context.Context, id string) (Status, error) {
	id = strings.TrimSpace(id)
	places, err := queueNames(ctx, l.redis)
	if err != nil {
		return Status{}, err
	}
	if strings.Contains(id, "@") {
		return l.byMessageID(ctx, places, id)
	}
	return l.byID(ctx, places, id)
}

// byMessageID finds out the ID of a message, and what is known of that.
func (l *Lookup) byMessageID(ctx context.Context, places []wire.QueueName, messageID string) (Status, error) {
	want := strings.Trim(messageID, "<>")
	ids, err := l.waiting(ctx, places, want, func(p *wire.Payload) bool { return strings.Trim(p.Message.MessageID, "<>") == want })
	if err != nil {
		return Status{}, err
	}
	records, window, err := history.Search(ctx, l.redis, asynqNames(places), history.Query{MessageID: messageID, Limit: mostParts})
	if err != nil {
		return Status{}, err
	}
	for _, r := range records {
		ids = append(ids, r.ID)
	}
	if len(ids) == 0 {
		return Status{State: StateUnknown, MessageID: messageID, Kept: window.For, Since: window.Since}, nil
	}
	// What has come of a message has an ID that begins with the message's.
	slices.SortStableFunc(ids, func(a, b string) int { return cmp.Compare(len(a), len(b)) })
	return l.byID(ctx, places, ids[0])
}

// mostParts is how many messages are shown of a task, or found at once if the caller does not say.
const mostParts = 1000

// byID finds a message by its ID.
func (l *Lookup) byID(ctx context.Context, places []wire.QueueName, id string) (Status, error) {
	live, err := l.live(ctx, places, id)
	if err != nil {
		return Status{}, err
	}
	records, window, err := history.Search(ctx, l.redis, asynqNames(places), history.Query{ID: id, Limit: mostParts})
	if err != nil {
		return Status{}, err
	}
	s := Status{State: StateUnknown, ID: id}
	known := map[string]bool{}
	add := func(other Status) {
		switch {
		case known[other.ID]:
		case other.ID == id:
			s = other
		default:
			s.Parts = append(s.Parts, other)
		}
		known[other.ID] = true
	}
	var last []Status // tasks that have ended, and are kept: the history says more
	for _, other := range live {
		if other.State.Ended() && other.State != StateDead {
			last = append(last, other)
		} else {
			add(other)
		}
	}
	parts := s.Parts
	for _, r := range records {
		s.Parts = nil
		add(statusOf(r))
		parts = append(parts, s.Parts...)
	}
	s.Parts = nil
	for _, other := range last {
		s.Parts = nil
		add(other)
		parts = append(parts, s.Parts...)
	}
	slices.SortStableFunc(parts, func(a, b Status) int { return compareIDs(a.ID, b.ID) })
	if s.Parts = parts; s.State == StateUnknown && len(parts) > 0 {
		s.ofParts()
	}
	s.Kept, s.Since = window.For, window.Since
	return s, nil
}

// compareIDs puts the messages of a task in their order.
func compareIDs(a, b string) int {
	taskA, indexA, _ := wire.SplitID(a)
	taskB, indexB, _ := wire.SplitID(b)
	return cmp.Or(cmp.Compare(taskA, taskB), cmp.Compare(indexA, indexB), cmp.Compare(a, b))
}

// ofParts says of a task of many messages what all of them have in common.
func (s *Status) ofParts() {
	first := s.Parts[0]
	s.State, s.Queue, s.Mailer, s.Mailing = first.State, first.Queue, first.Mailer, first.Mailing
	for _, p := range s.Parts[1:] {
		if p.State != s.State {
			s.State = StateSeveral
		}
	}
}

// live returns what there is of an ID among the tasks: the message's own, and what has come of it.
func (l *Lookup) live(ctx context.Context, places []wire.QueueName, id string) ([]Status, error) {
	type candidate struct {
		place wire.QueueName
		id    string
		index int // of the message in a task of many; -1: of all
	}
	var candidates []candidate
	task, index, inBulk := wire.SplitID(id)
	for _, place := range places {
		switch {
		case !place.Bulk:
			for _, suffix := range []string{"", "-later", "-refused", "-again"} {
				candidates = append(candidates, candidate{place, id + suffix, -1})
			}
		case inBulk:
			candidates = append(candidates, candidate{place, task, index})
		default:
			candidates = append(candidates, candidate{place, id, -1})
		}
	}
	var found []Status
	for some := range slices.Chunk(candidates, 1000) {
		exist := make([]*redis.IntCmd, len(some))
		_, err := l.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, c := range some {
				exist[i] = p.Exists(ctx, asynqbatch.TaskKey(c.place.String(), c.id))
			}
			return nil
		})
		if err != nil {
			return nil, redisconn.Unavailable(err)
		}
		for i, c := range some {
			if exist[i].Val() == 0 {
				continue
			}
			these, err := l.task(ctx, c.place, c.id, c.index)
			if err != nil {
				return nil, err
			}
			found = append(found, these...)
		}
	}
	return found, nil
}

// task returns what there is of a task's messages: of the one with that index, or of all if that is negative.
func (l *Lookup) task(ctx context.Context, place wire.QueueName, id string, index int) ([]Status, error) {
	fields, err := l.redis.HGetAll(ctx, asynqbatch.TaskKey(place.String(), id)).Result()
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	if next := fields[wire.FieldReplayed]; next != "" { // a mark in the task's place
		s := Status{State: StateReplayed, ID: id, Queue: place.Queue, Mailer: place.Mailer, Reply: next}
		if fields[wire.FieldCancelled] != "" {
			s.State, s.Reply = StateCancelled, ""
		}
		return []Status{s}, nil
	}
	info, err := asynq.NewInspectorFromRedisClient(l.redis).GetTaskInfo(place.String(), id)
	switch {
	case errors.Is(err, asynq.ErrTaskNotFound), errors.Is(err, asynq.ErrQueueNotFound):
		return nil, nil // it has just ended
	case err != nil:
		return nil, redisconn.Unavailable(err)
	case info.Type == wire.TaskType:
		return []Status{taskStatus(place, info, fields, id, "", info.Payload)}, nil
	case info.Type != wire.TaskTypeBulk:
		return nil, nil // another program's
	}
	var all []Status
	n := 0
	for line := range wire.Lines(info.Payload) {
		if index < 0 || n == index {
			message := wire.MessageID(id, n)
			if s := taskStatus(place, info, fields, message, message[len(id):], line); s.State != "" {
				all = append(all, s)
			}
		}
		n++
	}
	return all, nil
}

// taskStatus is the status of a message of a task, whose fields in the record end in suffix. Its state is empty if the message has
// left the task.
func taskStatus(place wire.QueueName, info *asynq.TaskInfo, fields map[string]string, id, suffix string, payload []byte) Status {
	s := Status{ID: id, Queue: place.Queue, Mailer: place.Mailer, Tries: info.Retried, Reply: redact.Reason(info.LastErr, false)}
	tried := 1 // by the task itself, if it has failed
	if p, err := wire.Decode(payload, nil); err == nil {
		if p.Refused != "" && p.Spent > 0 {
			tried = 0 // it was refused in another task; this one was not tried
		}
		s.MessageID, s.Mailing, s.Tags, s.Due = p.Message.MessageID, p.Mailing, p.Tags, p.DueAt
		s.Tries += p.Spent
		message := p.Message
		if len(p.Recipients) > 0 {
			message = message.WithRecipients(p.Recipients)
		}
		to := history.Recipients(message)
		s.Recipients, s.To = len(to), shownTo(redact.View{}, to)
	}
	sent, wasSent := fields[wire.FieldSent+suffix]
	if wasSent {
		record, err := wire.DecodeRecord(sent)
		if err == nil && record.Moved {
			return Status{}
		}
		s.State, s.Reply = StateSent, redact.Reason(record.Reply, false)
		return s
	}
	onWire := fields[wire.FieldWire+suffix]
	switch {
	case fields[wire.FieldCancelled+suffix] != "":
		s.State, s.Reply = StateCancelled, ""
		return s
	case info.State == asynq.TaskStateActive && onWire != "" && onWire != wire.Decided:
		s.State = StateOnWire
		return s
	}
	switch info.State {
	case asynq.TaskStateActive:
		s.State = StateInHand
	case asynq.TaskStateScheduled:
		if info.NextProcessAt.Unix() == wire.AsideUntil {
			s.State = StatePaused
			break
		}
		s.State, s.Due = StateScheduled, info.NextProcessAt.UTC()
	case asynq.TaskStateRetry:
		s.State, s.Due = StateRetry, info.NextProcessAt.UTC()
	case asynq.TaskStateArchived:
		s.State, s.At = StateDead, info.LastFailedAt.UTC()
		if info.LastFailedAt.IsZero() {
			s.At, tried = time.Time{}, 0
		}
		s.Tries += tried
		s.Reply = redact.Reason(reasonOf(fields[wire.FieldReason], info.LastErr), false)
	case asynq.TaskStateCompleted:
		s.State, s.At = StateSent, info.CompletedAt.UTC()
		if result, ok := wire.ReadResult(info.Result); ok {
			s.Reply = redact.Reason(result.Reply, false)
		}
	default:
		s.State = StateWaiting
	}
	return s
}

// statusOf is what a record of the history says.
func statusOf(r history.Record) Status {
	states := map[history.State]MessageState{
		history.Sent: StateSent, history.Skipped: StateSkipped, history.Silent: StateSilent, history.Cancelled: StateCancelled,
		history.Dead: StateDead, history.Replayed: StateReplayed, history.Deleted: StateDeleted,
	}
	name := wire.ParseQueueName(r.Queue)
	return Status{
		State: states[r.State], ID: r.ID, MessageID: r.MessageID, Queue: name.Queue, Mailer: name.Mailer, Mailing: r.Mailing, Tags: r.Tags,
		To: r.To, Recipients: r.Recipients, Due: r.Due, At: r.At, Tries: r.Tries, Reply: r.Reply,
	}
}

func asynqNames(places []wire.QueueName) []string {
	list := make([]string, len(places))
	for i, place := range places {
		list[i] = place.String()
	}
	return list
}

// Search says which messages are looked for: those that fit all that is not zero.
type Search struct {
	To      string    // a recipient's address, in full
	Tag     string    //
	Mailing string    //
	Since   time.Time // what has ended before that is left out
	Limit   int       // how many, the newest: 100 if zero
}

// Found is what a Search has found.
type Found struct {
	Messages []Status // those that have not ended first, then the newest first

	// More reports that there may be more than Search.Limit.
	More bool

	// Kept and Since are as in Status.
	Kept  time.Duration
	Since time.Time
}

// History returns the messages that fit a search: what waits, and what has ended as far as the history reaches back. It
// looks through all of both, as Status does for a Message-ID. The error of a recipient that is no address is
// of class Permanent.
func (l *Lookup) History(ctx context.Context, s Search) (Found, error) {
	if s.Limit <= 0 {
		s.Limit = 100
	}
	places, err := queueNames(ctx, l.redis)
	if err != nil {
		return Found{}, err
	}
	if s.To != "" {
		e, err := (&mailer.EmailMessage{FromEmail: "x@example.com", To: []string{s.To}}).Envelope()
		if err != nil {
			return Found{}, &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: err}
		}
		s.To = e.To[0]
	}
	var found Found
	needle := slices.DeleteFunc([]string{s.To, s.Mailing, s.Tag}, func(text string) bool { return text == "" })
	if len(needle) == 0 {
		needle = []string{""}
	}
	ids, err := l.waiting(ctx, places, needle[0], s.fits)
	if err != nil {
		return found, err
	}
	known := map[string]bool{}
	for _, id := range ids {
		if len(found.Messages) == s.Limit {
			found.More = true
			break
		}
		these, err := l.live(ctx, places, id)
		if err != nil {
			return found, err
		}
		for _, one := range these {
			if one.ID == id && (!one.State.Ended() || one.State == StateDead) {
				found.Messages = append(found.Messages, one)
				known[id+"\x00"+string(one.State)] = true
			}
		}
	}
	records, window, err := history.Search(ctx, l.redis, asynqNames(places), history.Query{
		To: s.To, Tag: s.Tag, Mailing: s.Mailing, Since: s.Since, Limit: s.Limit + 1,
	})
	for _, r := range records {
		one := statusOf(r)
		if known[one.ID+"\x00"+string(one.State)] { // a dead letter that is still there
			continue
		}
		if len(found.Messages) == s.Limit {
			found.More = true
			break
		}
		found.Messages = append(found.Messages, one)
	}
	found.Kept, found.Since = window.For, window.Since
	return found, err
}

// fits reports whether a message that waits is looked for.
func (s Search) fits(p *wire.Payload) bool {
	message := p.Message
	if len(p.Recipients) > 0 {
		message = message.WithRecipients(p.Recipients)
	}
	isTo := func(addr string) bool { return strings.EqualFold(addr, s.To) }
	return (s.To == "" || slices.ContainsFunc(history.Recipients(message), isTo)) &&
		(s.Tag == "" || slices.Contains(p.Tags, s.Tag)) && (s.Mailing == "" || p.Mailing == s.Mailing)
}

// waiting returns the IDs of messages that are in tasks, have a text in their payload, and fit.
func (l *Lookup) waiting(ctx context.Context, places []wire.QueueName, text string, fits func(*wire.Payload) bool) ([]string, error) {
	var ids []string
	for _, place := range places {
		err := find.Tasks(ctx, l.redis, place.String(), text, func(id string) error {
			more, err := l.fitting(ctx, place, id, fits)
			ids = append(ids, more...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// fitting returns the IDs of the messages of a task that fit.
func (l *Lookup) fitting(ctx context.Context, place wire.QueueName, id string, fits func(*wire.Payload) bool) ([]string, error) {
	records, err := readRecords(ctx, l.redis, id, place)
	if err != nil || len(records) == 0 {
		return nil, err
	}
	r := records[0]
	var ids []string
	index := 0
	for line := range wire.Lines(r.Payload) {
		if p, err := wire.Decode(line, nil); err == nil && fits(p) {
			if r.Type == wire.TaskTypeBulk {
				ids = append(ids, wire.MessageID(id, index))
			} else {
				ids = append(ids, id)
			}
		}
		index++
	}
	return ids, nil
}
