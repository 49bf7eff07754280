package tasks

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// clusterHouse is a house on a cluster of three masters, reached with the rights that are documented, whose queues have three
// parts each.
type clusterHouse struct {
	*realHouse
	client redis.UniversalClient // a program's
	admin  *redis.ClusterClient
	gate   atomic.Pointer[barrier] // that the relay's answers wait for
	sent   int                     // messages that have arrived so far, in the steps before
}

func newClusterHouse(t *testing.T) *clusterHouse {
	t.Helper()
	c := redistest.StartCluster(t, 3, redistest.Options{Config: []string{documentedACL(t)}})
	url := "redis://mailpouch:SECRET@" + c.Masters[0].Addr() + "?cluster=true"
	client, err := Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	h := &clusterHouse{realHouse: newRealHouse(t, url, nil), client: client, admin: c.Client(t)}
	h.relay.answer = func(ctx context.Context, m *mailer.EmailMessage) mailer.Result {
		if gate := h.gate.Load(); gate != nil {
			return gate.answer(ctx, m)
		}
		if strings.HasPrefix(m.MessageID, "<dead-") {
			return mailer.Result{Err: sendError(mailer.Permanent, 550, "no such user")}
		}
		return mailer.Result{}
	}
	return h
}

// put hands n messages over, so many in a task, and returns their IDs. Their Message-IDs are <prefix-0@t> and so on.
func (h *clusterHouse) put(prefix string, n, size int, o Options) []string {
	h.t.Helper()
	h.queue = NewQueue(h.client, QueueConfig{BulkSize: size, Mailers: []string{"marketing"}, Shards: 3, Options: o})
	return h.sendAll(n, func(i int, m *mailer.EmailMessage) {
		m.MessageID, m.To = fmt.Sprintf("<%s-%d@t>", prefix, i), []string{fmt.Sprintf("%s%d@example.com", prefix, i)}
	})
}

func (h *clusterHouse) workers() (stop func()) {
	h.t.Helper()
	cfg := h.config()
	cfg.Mailers, cfg.Queues, cfg.Shards, cfg.Concurrency = map[string]int{"marketing": 2}, map[string]int{"default": 3, "bulk": 1}, 3, 600
	one, two := h.start(cfg), h.start(cfg)
	return func() { one(); two() }
}

// keys are those of a pattern, of all masters.
func (h *clusterHouse) keys(pattern string) []string {
	h.t.Helper()
	found := make(chan string, 100_000)
	err := h.admin.ForEachMaster(h.t.Context(), func(ctx context.Context, node *redis.Client) error {
		for _, key := range node.Keys(ctx, pattern).Val() {
			found <- key
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	close(found)
	var all []string
	for key := range found {
		all = append(all, key)
	}
	return all
}

// masters is on how many masters there are keys of a pattern.
func (h *clusterHouse) masters(pattern string) int {
	h.t.Helper()
	var n atomic.Int32
	err := h.admin.ForEachMaster(h.t.Context(), func(ctx context.Context, node *redis.Client) error {
		if len(node.Keys(ctx, pattern).Val()) > 0 {
			n.Add(1)
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return int(n.Load())
}

// arrive waits until n more messages have arrived, each once, and nothing is left in any queue.
func (h *clusterHouse) arrive(n int) {
	h.t.Helper()
	h.wait(n)
	h.sent += n
	h.eventually("empty queues", func() bool { return len(h.keys("asynq:*:t:*")) == 0 })
	h.once(h.sent)
}

// status waits until the status of a message is as it has to be.
func (h *clusterHouse) status(id string, want MessageState, also func(Status) bool) {
	h.t.Helper()
	var last Status
	h.eventually(fmt.Sprintf("%s is %s", id, want), func() bool {
		s, err := h.queue.Status(h.t.Context(), id)
		if err != nil {
			h.t.Fatal(err)
		}
		last = s
		return s.State == want
	})
	if also != nil && !also(last) {
		h.t.Errorf("%s is %+v", id, last)
	}
}

// to returns the states of the messages to a recipient.
func (h *clusterHouse) to(recipient string) (states []MessageState) {
	h.t.Helper()
	found, err := h.queue.History(h.t.Context(), Search{To: recipient})
	if err != nil {
		h.t.Fatal(err)
	}
	for _, s := range found.Messages {
		states = append(states, s.State)
	}
	return states
}

// In a cluster, where the parts of a queue are on different masters, messages are found, paused and cancelled as in any other Redis.
func TestCluster_statusPausesCancel(t *testing.T) {
	t.Parallel()
	h := newClusterHouse(t)
	h.findsAll()
	for _, tt := range []struct {
		name string
		what PauseTarget
		o    Options // of what is paused
	}{
		{"queue", PauseTarget{Queue: "bulk"}, Options{Queue: "bulk", Mailing: "of-a-queue"}},
		{"mailer", PauseTarget{Mailer: "marketing"}, Options{Queue: "bulk", Using: "marketing"}},
		{"one", PauseTarget{Queue: "bulk", Mailer: "default"}, Options{Queue: "bulk"}},
		{"mailing", PauseTarget{Mailing: "july"}, Options{Queue: "bulk", Using: "marketing", Mailing: "july"}},
	} {
		h.pauses(tt.name, tt.what, tt.o)
	}
	h.cancelsMailing()
}

// findsAll looks messages up by ID, Message-ID and recipient, before and after they have ended.
func (h *clusterHouse) findsAll() {
	h.t.Helper()
	ids := map[string][]string{
		"single": h.put("single", 36, 1, Options{}),
		"mass":   h.put("mass", 40, 5, Options{Queue: "bulk", Mailing: "spring"}),
		"dead":   h.put("dead", 12, 1, Options{Using: "marketing"}),
	}
	if n := h.masters("asynq:{*}:pending"); n != 3 {
		h.t.Fatalf("what waits is on %d masters", n)
	}
	for name, list := range ids {
		for i, id := range list {
			messageID, isIt := fmt.Sprintf("<%s-%d@t>", name, i), func(s Status) bool { return s.ID == id }
			h.status(id, StateWaiting, func(s Status) bool { return s.MessageID == messageID })
			h.status(messageID, StateWaiting, isIt)
		}
		if got := h.to(name + "3@EXAMPLE.com"); !slices.Equal(got, []MessageState{StateWaiting}) {
			h.t.Errorf("to %s3: %s", name, got)
		}
	}
	stop := h.workers()
	h.wait(76)
	h.sent = 76
	for name, list := range ids {
		want := StateSent
		if name == "dead" {
			want = StateDead
		}
		for i, id := range list {
			h.status(id, want, func(s Status) bool { return s.Tries == 1 && strings.HasPrefix(s.To[0], name[:1]+"***@") })
			h.status(fmt.Sprintf("%s-%d@t", name, i), want, func(s Status) bool { return s.ID == id })
		}
		if got := h.to(name + "3@example.com"); !slices.Equal(got, []MessageState{want}) {
			h.t.Errorf("to %s3: %s", name, got)
		}
	}
	task, _, _ := strings.Cut(ids["mass"][0], ".")
	h.status(task, StateSent, func(s Status) bool { return len(s.Parts) == 5 })
	if found, err := h.queue.History(h.t.Context(), Search{Mailing: "spring"}); err != nil || len(found.Messages) != 40 {
		h.t.Errorf("the mailing has %d messages, %v, want 40", len(found.Messages), err)
	}
	if n := h.masters("mailpouch:{*}:history:*"); n != 3 {
		h.t.Errorf("the history is on %d masters", n)
	}
	dead := NewDeadLetters(h.client)
	n := 0
	for l, err := range dead.Each(h.t.Context(), Filter{}) {
		if err == nil {
			err = dead.Delete(h.t.Context(), l.Queue, l.ID)
		}
		if err != nil {
			h.t.Fatal(err)
		}
		n++
	}
	if n != 12 {
		h.t.Errorf("%d dead letters, want 12", n)
	}
	for _, id := range ids["dead"] {
		h.status(id, StateDeleted, nil)
	}
	stop()
}

// pauses pauses what waits, and what two workers have in hand, and lets it go on.
func (h *clusterHouse) pauses(name string, what PauseTarget, o Options) {
	h.t.Helper()
	p := NewPauses(h.client)
	pause := func() {
		h.t.Helper()
		if before, err := p.Pause(h.t.Context(), Pause{Target: what, Reason: "a test"}); before != nil || err != nil {
			h.t.Fatalf("%s: Pause = %v, %v", what, before, err)
		}
	}
	resume := func() {
		h.t.Helper()
		if ended, err := p.Resume(h.t.Context(), what); !ended || err != nil {
			h.t.Fatalf("%s: Resume = %v, %v", what, ended, err)
		}
	}
	quiet := func() bool { return len(h.keys("asynq:{*}:active")) == 0 && len(h.keys("asynq:{*}:lease")) == 0 }
	h.put(name+"-single", 30, 1, o)
	h.put(name+"-mass", 60, 3, o)
	pause()
	stop := h.workers()
	h.put(name+"-other", 6, 1, Options{Mailing: "august"})
	h.wait(6)
	h.sent += 6
	if what.Mailing != "" {
		h.eventually("it is set aside", func() bool { return len(h.keys("asynq:{marketing.bulk*}:pending")) == 0 && quiet() })
		if n := h.masters("mailpouch:{*}:aside:*"); n < 2 {
			h.t.Errorf("what was set aside is on %d masters", n)
		}
	}
	if list, err := p.List(h.t.Context()); err != nil || len(list) != 1 || list[0].Target != what {
		h.t.Errorf("List = %+v, %v", list, err)
	}
	h.once(h.sent)
	resume()
	h.arrive(90)

	gate := newBarrier()
	h.gate.Store(gate)
	h.put(name+"-hand", 60, 10, o)
	h.put(name+"-hand-single", 30, 1, o)
	<-gate.come
	h.eventually("the workers have all", func() bool { return len(h.keys("asynq:{*}:pending")) == 0 })
	pause()
	h.gate.Store(nil)
	gate.open()
	h.eventually("what is not on the wire is back", quiet)
	const connections = 4
	onWire := len(h.relay.ids()) - h.sent
	if onWire < 1 || onWire > connections {
		h.t.Errorf("%s: %d messages were sent though it is paused, want those on the wire: %d at most", what, onWire, connections)
	}
	h.wait(onWire)
	h.sent += onWire
	stop()
	resume()
	stop = h.workers()
	h.arrive(90 - onWire)
	stop()
	for _, pattern := range []string{"*paus*", "*aside*"} {
		if keys := h.keys(pattern); len(keys) > 0 {
			h.t.Errorf("%s: left behind: %s", what, keys)
		}
	}
}

// cancelsMailing takes back a mailing that waits in parts of several queues, while one is on the wire.
func (h *clusterHouse) cancelsMailing() {
	h.t.Helper()
	july := Options{Mailing: "july", Queue: "bulk"}
	gate := newBarrier()
	h.t.Cleanup(gate.open)
	h.gate.Store(gate)
	first := h.put("cancel-first", 1, 1, july)
	stop := h.workers()
	<-gate.come
	all := h.put("cancel-single", 30, 1, july)
	all = append(all, h.put("cancel-mass", 60, 10, july)...)
	july.Using = "marketing"
	all = append(all, h.put("cancel-marketing", 60, 10, july)...)
	july.ProcessIn = time.Hour
	all = append(all, h.put("cancel-later", 12, 1, july)...)
	h.eventually("the workers have all that is due", func() bool { return len(h.keys("asynq:{*}:pending")) == 0 })
	// What is on the wire goes on when all has been looked at, and so has been found to be too late.
	h.client.AddHook(cut{func(cmds []redis.Cmder) bool {
		if has(cmds, "smembers", wire.QueuesKey) && len(h.keys(wire.CancelledKey("*", "*"))) > 0 { // all is looked at again
			h.gate.Store(nil)
			gate.open()
		}
		return false
	}})
	got, err := h.queue.CancelMailing(h.t.Context(), "july")
	const connections = 8
	onWire := len(all) + 1 - got.Cancelled
	if err != nil || onWire < 1 || onWire > connections || got.TooLate != onWire {
		h.t.Errorf("CancelMailing = %+v, %v, want all %d but for at most %d", got, err, len(all)+1, connections)
	}
	h.wait(onWire)
	h.sent += onWire
	h.eventually("nothing is left but marks", func() bool {
		return !slices.ContainsFunc(h.keys("asynq:*:t:*"), func(key string) bool { return h.admin.HExists(h.t.Context(), key, "msg").Val() })
	})
	h.once(h.sent)
	h.status(first[0], StateSent, nil)
	states := map[MessageState]int{}
	for _, id := range all {
		s, err := h.queue.Status(h.t.Context(), id)
		if err != nil {
			h.t.Fatal(err)
		}
		states[s.State]++
	}
	if states[StateSent] != onWire-1 || states[StateCancelled] != len(all)-(onWire-1) {
		h.t.Errorf("afterwards they are %v", states)
	}
	if keys := append(h.keys(wire.PausedKey), h.keys("*aside*")...); len(keys) > 0 {
		h.t.Errorf("left behind: %s", keys)
	}
	stop()
}
