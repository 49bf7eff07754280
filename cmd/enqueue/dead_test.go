package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/hibiken/asynq"

	"github.com/mailpouch/mailpouch/internal/cli"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// bury makes dead letters of what waits in a queue, as asynqmon's archive button would.
func bury(t *testing.T, s *redistest.Server, queue string) {
	t.Helper()
	if _, err := asynq.NewInspectorFromRedisClient(s.Client(t)).ArchiveAllPendingTasks(queue); err != nil {
		t.Fatal(err)
	}
}

func TestDead(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	first := strings.TrimSpace(enqueue(t, "", "send", "--to", "ann@example.com", "--subject", "Grüße").out)
	second := strings.TrimSpace(enqueue(t, "", "send", "--to", "bob@example.com", "--queue", "bulk").out)
	bury(t, server, "default")
	bury(t, server, "bulk")

	if all, bulk := enqueue(t, "", "dead", "count"), enqueue(t, "", "dead", "count", "--queue", "bulk"); all.out != "2\n" || bulk.out != "1\n" {
		t.Errorf("count: %+v, of bulk %+v", all, bulk)
	}
	got := enqueue(t, "", "dead", "list")
	for _, want := range []string{first, second, "ann@example.com", "Grüße", "bulk"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("list has no %q:\n%s%s", want, got.out, got.err)
		}
	}
	if got := enqueue(t, "", "dead", "list", "--queue", "bulk"); strings.Contains(got.out, first) || !strings.Contains(got.out, second) {
		t.Errorf("list --queue bulk:\n%s", got.out)
	}
	if got := enqueue(t, "", "dead", "list", "--reason", "550"); strings.Contains(got.out, first) {
		t.Errorf("list --reason 550:\n%s", got.out)
	}
	if got := enqueue(t, "", "dead", "show", first); got.code != 0 || !strings.Contains(got.out, "not delivered to: ann@example.com") ||
		!strings.Contains(got.out, "\r\nTo: ann@example.com\r\n") {
		t.Errorf("show: %+v", got)
	}

	dir := filepath.Join(t.TempDir(), "dead")
	if got := enqueue(t, "", "dead", "export", "--eml", dir); got.code != 0 || got.out != "2 written\n" {
		t.Errorf("export --eml: %+v", got)
	}
	eml, err := os.ReadFile(filepath.Join(dir, first+".eml"))
	if err != nil || !strings.Contains(string(eml), "To: ann@example.com\r\n") {
		t.Errorf("exported %q, %v", eml, err)
	}
	got = enqueue(t, "", "dead", "export", second)
	var line exported
	if err := json.Unmarshal([]byte(got.out), &line); err != nil || line.ID != second || line.Message.To[0] != "bob@example.com" {
		t.Errorf("export: %+v (%v)", got, err)
	}

	if got := enqueue(t, "", "dead", "replay", first); got.code != 0 || got.out != "1 queued again\n" {
		t.Errorf("replay: %+v", got)
	}
	if got := enqueue(t, "", "dead", "delete", "--all"); got.code != 0 || got.out != "1 deleted\n" {
		t.Errorf("delete --all: %+v", got)
	}
	if got := enqueue(t, "", "dead", "list"); strings.Count(got.out, "\n") != 1 {
		t.Errorf("list at the end:\n%s", got.out)
	}
	if n := pending(t, server, "default"); n != 1 {
		t.Errorf("%d waiting, want the replayed one", n)
	}
}

// Two people who replay the same letters are each told how many they replayed themselves.
func TestDead_replayTogether(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	const letters = 300
	var lines strings.Builder
	for range letters {
		lines.WriteString(`{"to": ["ann@example.com"]}` + "\n")
	}
	t.Setenv("EMAIL_MASS_SIZE", "1")
	if got := enqueue(t, "", "bulk", file(t, "lines", lines.String())); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	bury(t, server, "default")
	results := make([]result, 2)
	var both sync.WaitGroup
	for i := range results {
		both.Go(func() { results[i] = enqueue(t, "", "dead", "replay", "--all") })
	}
	both.Wait()
	sum := 0
	for _, r := range results {
		n, err := strconv.Atoi(strings.TrimSuffix(r.out, " queued again\n"))
		none := n == 0 && r.code == 1 && strings.Contains(r.err, "no dead letter is meant") // the other one was done before this one looked
		if err != nil || r.code != 0 && !none {
			t.Errorf("%+v", r)
		}
		sum += n
	}
	if sum != letters || pending(t, server, "default") != letters {
		t.Errorf("%d replays and %d waiting, want %d each", sum, pending(t, server, "default"), letters)
	}
}

// What somebody else has replayed after it was listed does not count, and it is said how many these are.
func TestDead_replayedMeanwhile(t *testing.T) {
	t.Parallel()
	list := func(yield func(*tasks.DeadLetter, error) bool) {
		for i := range 5 {
			if !yield(&tasks.DeadLetter{ID: fmt.Sprint(i)}, nil) {
				return
			}
		}
	}
	var out, errs bytes.Buffer
	a := &app{std: cli.Streams{Out: &out, Err: &errs}}
	all, err := a.each(letters{all: list}, "queued again", func(l *tasks.DeadLetter) error {
		if l.ID == "1" || l.ID == "3" {
			return tasks.ErrNotDead
		}
		return nil
	})
	const others = "enqueue: 2 were replayed or deleted by somebody else meanwhile\n"
	if all != 5 || err != nil || out.String() != "3 queued again\n" || errs.String() != others {
		t.Errorf("%d, %v: %q, %q", all, err, &out, &errs)
	}
}

func TestDead_badInput(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"dead"}, 64, "a command is expected"},
		{[]string{"dead", "replay"}, 64, "which ones?"},
		{[]string{"dead", "delete"}, 64, "which ones?"},
		{[]string{"dead", "show"}, 64, "which ones?"},
		{[]string{"dead", "show", "NOSUCHID"}, 65, "NOSUCHID: no such dead letter"},
		{[]string{"dead", "replay", "NOSUCHID"}, 65, "NOSUCHID: no such dead letter"},
		{[]string{"dead", "shwo"}, 64, `unknown command "shwo"`},
		{[]string{"dead", "list", "--queue", "nosuch"}, 65, `there is no queue "nosuch" (there are bulk, critical, default)`},
		{[]string{"dead", "count", "--queue", "nosuch"}, 65, `there is no queue "nosuch"`},
		{[]string{"dead", "summary", "--using", "nosuch"}, 65, `there is no mailer "nosuch" (there are default)`},
		{[]string{"dead", "list", "--since", "yesterday"}, 64, `--since: "yesterday" is no time: `},
		{[]string{"dead", "summary", "--until", "-3h"}, 64, `--until: "-3h" is no time: `},
		{[]string{"dead", "replay", "--since", ""}, 64, "--since"},
		{[]string{"dead", "delete", "--reason", "550", "--to", ""}, 64, "--to"},
		{[]string{"dead", "list", "--tag", " "}, 64, "--tag"},
		{[]string{"dead", "replay", "--all"}, 1, "no dead letter is meant: nothing was queued again"},
		{[]string{"dead", "replay", "--all", "--dry-run"}, 1, "no dead letter is meant: nothing would be queued again"},
		{[]string{"dead", "delete", "--to", "nobody@example.com"}, 1, "no dead letter is meant: nothing was deleted"},
		{[]string{"dead", "show", "--reason", "550"}, 1, "no dead letter is meant: nothing to be shown"},
	} {
		if got := enqueue(t, "", tt.args...); got.code != tt.code || !strings.Contains(got.err, tt.want) {
			t.Errorf("%v: exit code %d, want %d\n%s", tt.args, got.code, tt.code, got.err)
		}
	}
}

// IDs may be cut short, as long as it is clear which one is meant.
func TestPick(t *testing.T) {
	all := []place{{"default", "ABCDE"}, {"default", "ABCDEFG.0"}, {"bulk", "ABCXY"}, {"bulk", "QQQQQ"}}
	tests := []struct {
		ids, want, err string
	}{
		{"ABCDE", "ABCDE", ""},
		{"ABCX QQQQ", "ABCXY QQQQQ", ""},
		{"ABCDEF", "ABCDEFG.0", ""},
		{"ABCD", "", "ABCD: 2 dead letters"},
		{"QQQ", "", "QQQ: no such dead letter"},
		{"QQQQQ nosuch", "", "nosuch: no such dead letter"},
	}
	for _, tt := range tests {
		t.Run(tt.ids, func(t *testing.T) {
			picked, err := pick(func(yield func(place, error) bool) {
				for _, p := range all {
					if !yield(p, nil) {
						return
					}
				}
			}, strings.Fields(tt.ids))
			var got []string
			for _, p := range picked {
				got = append(got, p.id)
			}
			if strings.Join(got, " ") != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// A finished message is shown as what it is.
func TestDead_raw(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	id := strings.TrimSpace(enqueue(t, "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n\nhello\n", "raw", "-v", "ann@example.com").out)
	bury(t, server, "default")
	if got := enqueue(t, "", "dead", "list"); !strings.Contains(got.out, "Grüße") {
		t.Errorf("list: %+v", got)
	}
	if got := enqueue(t, "", "dead", "show", id[:8]); got.code != 0 || !strings.Contains(got.out, "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nhello\r\n") {
		t.Errorf("show: %+v", got)
	}
}

// What a stranger has put into a message, or a program into Redis, neither steers the terminal
// nor turns the writing direction.
func TestDead_strangers(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	const dirt = "a\x1b[2J\u009b1m\u202egnp.exe\u2066\ufeffz"
	text := strings.Trim(strconv.QuoteToASCII(dirt), `"`)
	text = strings.ReplaceAll(text, `\x1b`, `\u001b`) // as JSON has it
	payload := `{"version":1,"due_at":"2026-01-02T03:04:05Z","recipients":["` + text + `@example.com"],"message":{"subject":"` + text +
		`","to":["` + text + `@example.com"],"message_id":"<1@x>","date":"2026-01-02T03:04:05Z"}}`
	client := asynq.NewClientFromRedisClient(server.Client(t))
	for _, p := range []string{payload, dirt} {
		if _, err := client.EnqueueContext(t.Context(), asynq.NewTask(wire.TaskType, []byte(p)), asynq.Queue("default"), asynq.TaskID(dirt+p[:1])); err != nil {
			t.Fatal(err)
		}
	}
	bury(t, server, "default")
	for _, args := range [][]string{
		{"dead", "list"}, {"dead", "replay", "--all"}, {"dead", "export", "--eml", filepath.Join(t.TempDir(), "x")},
		{"dead", "show", dirt}, {"dead", "list", "--queue", dirt}, {"dead", dirt}, {dirt}, {"cancel", dirt}, {"send", "--" + dirt},
	} {
		got := enqueue(t, "", args...)
		said := got.out + got.err
		if slices.Contains(args, "show") { // what follows is the task as it is, for a program; on a terminal it is made visible
			said, _, _ = strings.Cut(said, "\n\n")
		}
		if strings.ContainsAny(said, "\x1b\u009b\u202e\u2066\ufeff") || !strings.Contains(said, "[2J") && !strings.Contains(said, "written") {
			t.Errorf("%q: %q", args, said)
		}
	}
	bulk := enqueue(t, `{"subject": "x", "to": ["`+text+`"]}`, "bulk", "-")
	if strings.ContainsAny(bulk.err, "\x1b\u009b\u202e\u2066\ufeff") || bulk.code != 65 {
		t.Errorf("bulk: %+v", bulk)
	}
}

// The name of a queue means all that asynq makes of it.
func TestDead_queue(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	t.Setenv("EMAIL_MAILERS", "alerts")
	t.Setenv("EMAIL_ALERTS_HOST", "localhost")
	enqueue(t, "", "send", "--to", "ann@example.com", "--queue", "bulk")
	enqueue(t, "", "send", "--to", "ann@example.com", "--queue", "bulk", "--using", "alerts")
	enqueue(t, "", "send", "--to", "ann@example.com")
	for _, queue := range []string{"bulk", "alerts.bulk", "default"} {
		bury(t, server, queue)
	}
	for queue, want := range map[string]string{"bulk": "2\n", "alerts.bulk": "1\n", "default": "1\n", "critical": "0\n"} {
		if got := enqueue(t, "", "dead", "count", "--queue", queue); got.out != want || got.code != 0 {
			t.Errorf("%s: %+v, want %q", queue, got, want)
		}
	}
}

// Letters are chosen by what operators know of them, looked at before anything is done, and counted by reason.
func TestDead_filters(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	client := server.Client(t)
	q := tasks.NewQueue(client, tasks.QueueConfig{Defaults: mailer.Defaults{Hostname: "app.example.com"}})
	ids := map[string]string{}
	for i, to := range []string{"ann@example.com", "Bob@Example.org", "carl@example.org"} {
		m := &mailer.EmailMessage{Subject: fmt.Sprintf("Order %d", i), FromEmail: "shop@example.com", To: []string{to}, Body: "secret\n"}
		o := tasks.Options{}
		if i == 2 {
			o = tasks.Options{Tags: []string{"invoice"}, Mailing: "november", Queue: "bulk"}
		}
		id, err := q.With(o).Enqueue(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		ids[to] = id
		queue := cmp.Or(o.Queue, "default")
		bury(t, server, queue)
		reason := fmt.Sprintf("550 5.1.1 <%s>: User UNKNOWN (RCPT)", to)
		if i == 0 {
			reason = "552 5.2.2 over quota (end of data)"
		}
		if err := client.HSet(t.Context(), "asynq:{"+queue+"}:t:"+id, wire.FieldReason, reason).Err(); err != nil {
			t.Fatal(err)
		}
	}
	const ann, bob, carl = "ann@example.com", "Bob@Example.org", "carl@example.org"
	for args, want := range map[string][]string{
		"": {ann, bob, carl}, "--to BOB@example.org": {bob}, "--to @example.org": {bob, carl}, "--subject order": {ann, bob, carl},
		"--subject ORDER --reason unknown": {bob, carl}, "--tag invoice": {carl}, "--mailing november": {carl}, "--since 1h": {ann, bob, carl},
		"--until 1h": {}, "--using default --queue default": {ann, bob}, "--reason quota": {ann},
	} {
		got := enqueue(t, "", append([]string{"dead", "list", "--json"}, strings.Fields(args)...)...)
		var found []string
		for line := range strings.Lines(got.out) {
			var l listed
			if err := json.Unmarshal([]byte(line), &l); err != nil || l.Reason == "" || l.Subject == "" || l.MessageID == "" || l.At.IsZero() || l.ID != ids[l.Recipients[0]] {
				t.Errorf("%s: %s (%v)", args, line, err)
				continue
			}
			found = append(found, l.Recipients[0])
		}
		if slices.Sort(found); !slices.Equal(found, slices.Sorted(slices.Values(want))) || strings.Contains(got.out, "secret") || got.code != 0 {
			t.Errorf("%s: %v, want %v\n%+v", args, found, want, got)
		}
		if n := enqueue(t, "", append([]string{"dead", "count"}, strings.Fields(args)...)...); n.out != fmt.Sprintf("%d\n", len(want)) {
			t.Errorf("count %s: %+v", args, n)
		}
	}

	got := enqueue(t, "", "dead", "summary")
	lines := strings.Split(got.out, "\n")
	if len(lines) != 5 || !strings.HasPrefix(lines[1], "2 ") || !strings.HasSuffix(lines[1], "  550 5.1.1 …: User UNKNOWN (RCPT)") ||
		!strings.HasSuffix(lines[2], "  552 5.2.2 over quota (end of data)") || strings.Fields(lines[3])[0] != "3" {
		t.Errorf("summary: %+v", got)
	}
	got = enqueue(t, "", "dead", "summary", "--json", "--to", ann)
	var g tasks.ReasonCount
	if err := json.Unmarshal([]byte(got.out), &g); err != nil || g.Count != 1 || g.Group != "552 5.2.2 over quota (end of data)" || g.Queues["default"] != 1 {
		t.Errorf("summary --json: %+v, %v", got, err)
	}

	for _, command := range []string{"replay", "delete"} {
		got = enqueue(t, "", "dead", command, "--reason", "UNKNOWN", "--dry-run")
		if !strings.Contains(got.out, bob) || !strings.Contains(got.out, "\n2 would be ") || got.code != 0 {
			t.Errorf("%s --dry-run: %+v", command, got)
		}
	}
	if n := enqueue(t, "", "dead", "count"); n.out != "3\n" {
		t.Errorf("after dry runs: %+v", n)
	}
	if got = enqueue(t, "", "dead", "show", ids[carl], "--json"); !strings.Contains(got.out, `"tags":["invoice"],"mailing":"november"`) || !strings.Contains(got.out, "secret") {
		t.Errorf("show --json: %+v", got)
	}
	if got = enqueue(t, "", "dead", "show", ids[carl]); !strings.Contains(got.out, "\ntags: invoice\nmailing: november\n") {
		t.Errorf("show: %+v", got)
	}
	if got = enqueue(t, "", "dead", "replay", "--to", "@EXAMPLE.ORG"); got.out != "2 queued again\n" || got.code != 0 {
		t.Errorf("replay: %+v", got)
	}
	if got = enqueue(t, "", "dead", "replay", "--to", "@EXAMPLE.ORG"); got.out != "0 queued again\n" || got.code != 1 {
		t.Errorf("replay of nothing: %+v", got)
	}
}
