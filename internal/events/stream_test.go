package events

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
)

func (d *desk) state(field string) int64 {
	n, _ := strconv.ParseInt(d.redis.HGet(d.Context(), stateKey("default"), field).Val(), 10, 64)
	return n
}

// A full stream loses its oldest events. Those that not all groups have acknowledged are counted.
func TestTrim(t *testing.T) {
	t.Parallel()
	one := len(Append(nil, Sent, Message{ID: "a000"}, "250 ok", "a000@example.com")) + entryOverhead
	size := 10 * one
	for _, tt := range []struct {
		name   string
		groups func(d *desk) // what groups do when ten events are there
		want   int64         // of 90 that go then
	}{
		{"no group", func(*desk) {}, 90},
		{"a group that has read nothing", func(d *desk) { d.redis.XGroupCreate(d.Context(), Key("default"), "one", "0") }, 90},
		{"a group that has acknowledged ten", func(d *desk) {
			d.redis.XGroupCreate(d.Context(), Key("default"), "one", "0")
			d.redis.XAck(d.Context(), Key("default"), "one", d.readsAll("one", 100)...)
		}, 80},
		{"a group that has read ten, and acknowledged four", func(d *desk) {
			d.redis.XGroupCreate(d.Context(), Key("default"), "one", "0")
			ids := d.readsAll("one", 100)
			d.redis.XAck(d.Context(), Key("default"), "one", ids[2:6]...)
		}, 86},
		{"two groups, of which one has acknowledged", func(d *desk) {
			d.redis.XGroupCreate(d.Context(), Key("default"), "one", "0")
			d.redis.XGroupCreate(d.Context(), Key("default"), "two", "0")
			d.redis.XAck(d.Context(), Key("default"), "one", d.readsAll("one", 100)...)
		}, 90},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			for i := range 10 {
				d.add("default", size, fmt.Sprintf("a%03d", i))
			}
			tt.groups(d)
			for i := 10; i < 100; i++ {
				d.add("default", size, fmt.Sprintf("a%03d", i))
			}
			left := d.redis.XRange(t.Context(), Key("default"), "-", "+").Val()
			gone := int64(100 - len(left))
			if len(left) < 9 || len(left) > 10 || d.state(fieldBytes) != int64(len(left)*one) || d.state(fieldSize) != int64(size) {
				t.Errorf("%d events left, %d bytes of %d are counted", len(left), d.state(fieldBytes), d.state(fieldSize))
			}
			stats, err := ReadStats(t.Context(), d.redis, []string{"none", "default"})
			if err != nil || len(stats) != 1 || stats[0].Queue != "default" || stats[0].Bytes != int64(len(left)*one) || stats[0].Unread != d.state(fieldUnread) {
				t.Errorf("stats %+v, %v", stats, err)
			}
			for _, g := range d.redis.XInfoGroups(t.Context(), Key("default")).Val() {
				if oldest := stats[0].Oldest[g.Name]; !oldest.Equal(timeOf(left[0].ID)) {
					t.Errorf("the oldest event of %s is of %v, want %v", g.Name, oldest, timeOf(left[0].ID))
				}
			}
			if got, want := d.state(fieldUnread), tt.want+gone-90; got != want {
				t.Errorf("%d events went unread, want %d", got, want)
			}
			for _, g := range d.redis.XInfoGroups(t.Context(), Key("default")).Val() {
				pending := d.redis.XPending(t.Context(), Key("default"), g.Name).Val()
				if pending.Count > 0 && pending.Lower < left[0].ID {
					t.Errorf("%s: what is gone is pending: %+v", g.Name, pending)
				}
			}
		})
	}
}

func (d *desk) readsAll(group string, n int64) (ids []string) {
	d.Helper()
	got, err := d.redis.XReadGroup(d.Context(), &redis.XReadGroupArgs{Group: group, Consumer: consumer, Streams: []string{Key("default"), ">"}, Count: n, Block: -1}).Result()
	if err != nil {
		d.Fatal(err)
	}
	for _, m := range got[0].Messages {
		ids = append(ids, m.ID)
	}
	return ids
}

// A bulk entry counts as many events as it has, and a stream of one entry that is too big for it keeps none but grows no further.
func TestTrim_big(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.add("default", 1000, numbered("a", 0, 100)...)
	d.add("default", 1000, "b")
	if n := d.redis.XLen(t.Context(), Key("default")).Val(); n != 1 || d.state(fieldUnread) != 100 {
		t.Errorf("%d entries, %d events unread", n, d.state(fieldUnread))
	}
}

// Mail does not depend on events: a Redis that refuses them lets the script go on.
func TestAdd_refused(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.redis.Set(t.Context(), Key("default"), "not a stream", 0)
	d.add("default", plenty, "a")
	d.add("default", 1, "b")
	server := redistest.Start(t, redistest.Options{})
	admin := server.Client(t)
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-xadd", "-xinfo").Err(); err != nil {
		t.Fatal(err)
	}
	app := redis.NewClient(&redis.Options{Addr: server.Addr(), Username: "app", Password: "secret"})
	defer func() { _ = app.Close() }()
	other := &desk{t, server, app}
	other.add("default", plenty, "a")
	if n := admin.Exists(t.Context(), Key("default")).Val(); n != 0 {
		t.Error("there is a stream")
	}
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "app", "+xadd").Err(); err != nil {
		t.Fatal(err)
	}
	for range 100 { // it may not ask which groups there are, and yet the stream grows no further
		other.add("default", 500, "a")
	}
	if n := admin.XLen(t.Context(), Key("default")).Val(); n > 10 {
		t.Errorf("%d entries", n)
	}
}

// Who does not know whether events are kept writes them where others do.
func TestFollow(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	follow := redis.NewScript(Lua + `eventsFollow(KEYS[1], ARGV[1])`)
	data := Append(nil, Cancelled, Message{ID: "a"}, "")
	run := func() {
		t.Helper()
		if err := follow.Run(t.Context(), d.redis, []string{Key("default")}, data).Err(); err != nil && err != redis.Nil { //nolint:errorlint // it is that
			t.Fatal(err)
		}
	}
	run()
	if n := d.redis.DBSize(t.Context()).Val(); n != 0 {
		t.Error("it begins by itself")
	}
	d.add("default", plenty, "a")
	run()
	if n := d.redis.XLen(t.Context(), Key("default")).Val(); n != 2 {
		t.Errorf("%d entries, want 2", n)
	}
}

// Of a task of many only the messages that have not ended have an event.
func TestLeft(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	var lines strings.Builder
	for i := range 6 {
		fmt.Fprintf(&lines, `{"version":1,"due_at":"2026-11-27T08:00:00Z","message":{"to":["u%d@example.com"],"from_email":"a@example.com"}}`+"\n", i)
	}
	data := OfTask(wire.TaskTypeBulk, "ABC", []byte(lines.String()), 1, Failed, "why")
	left := redis.NewScript(Lua + `return eventsLeft(KEYS[1], ARGV[1])`)
	d.redis.HSet(t.Context(), "task", wire.FieldSent+".1", `{"reply":"250"}`, wire.FieldCancelled+".2", "1",
		wire.FieldSent+".3", `{"moved":true}`, wire.FieldSent+".4", `{"moved":true,"rest":{}}`)
	text, err := left.Run(t.Context(), d.redis, []string{"task"}, data).Text()
	if err != nil {
		t.Fatal(err)
	}
	list, err := decode("default:mass", atOf(t, "1-0"), text)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list {
		got = append(got, e.EmailID+" "+e.Recipient)
	}
	if want := []string{"ABC.0 u0@example.com", "ABC.4 u4@example.com", "ABC.5 u5@example.com"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	single := OfTask(wire.TaskType, "ABC", []byte("{"), 0, Failed, "why")
	if n := binary.BigEndian.Uint32(single[1:]); int(n) != len(single)-5 {
		t.Errorf("length %d of %d", n, len(single))
	}
	for field, want := range map[string]int{"": len(single) - 5, wire.FieldSent: 0, wire.FieldCancelled: 0} {
		d.redis.Del(t.Context(), "task")
		if field != "" {
			d.redis.HSet(t.Context(), "task", field, "1")
		}
		if text, err := left.Run(context.Background(), d.redis, []string{"task"}, single).Text(); err != nil || len(text) != want {
			t.Errorf("%q: %d bytes, %v", field, len(text), err)
		}
	}
}
