package leak

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/wire"
)

// TestDelivery: a relay that accepts, refuses now and refuses for good, and each time
// repeats another part of the message, or the password.
func TestDelivery(t *testing.T) {
	s := newSite(t, startRelay(t, false))
	find(t, "worker check", s.must("", "worker", "check"), slices.Concat(credentials(), contents()))

	var lines []any
	for _, m := range messages() {
		lines = append(lines, m)
	}
	said := s.must("", "enqueue", "bulk", "--retention", "1h", file(t, "messages.jsonl", lines...))
	ends := len(lines) + len(repeats()) - 1 // who is refused alone is a dead letter beside
	for _, verdict := range verdicts() {
		said += s.must(rawMessage(verdict), "enqueue", "raw", "-t", "-f", string(author)+"@example.com", "--retention", "1h")
		ends++
	}
	ends++
	said += s.must(bodyText(), "enqueue", "send", "--to", to("never", "header"), "--bcc", string(blindCopy)+"@example.org",
		"--subject", subjectText(), "--body-file", "-", "--header", "X-Code: "+headerText(), "--attach", file(t, fileText(), bytesText()))
	ends++
	find(t, "enqueue", said, everything())
	ends += s.enqueueUnreadable()

	w := s.worker(nil)
	pages := w.pages()
	w.ends(ends)
	s.checkPages(pages)
	s.checkRedis()
	found := s.must("", "enqueue", "history", "--to", string(blindCopy)+"@example.org", "--json")
	find(t, "enqueue history", found, everything())
	if !strings.Contains(found, `"state":"sent"`) && !strings.Contains(found, `"state":"dead letter"`) {
		t.Errorf("enqueue history has %s", found)
	}
	dead := s.must("", "enqueue", "dead", "list")
	if strings.Count(dead, "\n") < 30 {
		t.Errorf("too few dead letters for a test of them:\n%s", dead)
	}
	find(t, "enqueue dead list", dead, slices.Concat(credentials(), contents()))
	find(t, "enqueue dead show", s.must("", "enqueue", "dead", "show", "--all"), credentials()) // it is there to show the message
	find(t, "enqueue dead export", s.must("", "enqueue", "dead", "export"), credentials())      // and this too
	log := w.stop()
	find(t, "the log", log, everything())
	for _, want := range []string{
		`"code":250,"enhanced":"2.0.0","reply":"250 2.0.0 Ok: `, `"code":550,"enhanced":"5.7.1","error":"`, "(hidden)",
		`"to":["o***@example.com","b***@example.org"]`, `"connection":"`, `"waited":`, `"took":`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %s:\n%s", want, log)
		}
	}
}

// enqueueUnreadable puts tasks into the queue that nobody can read, and returns how many lines
// of the log they will be.
func (s *site) enqueueUnreadable() int {
	s.Helper()
	client := asynq.NewClientFromRedisClient(s.redis.Client(s))
	const head = `{"version":1,"due_at":"2026-01-02T03:04:05Z","message":`
	payloads := []string{
		string(unreadable), `"` + string(unreadable) + `"`, `{"` + string(unreadable) + `"`, `{"version":"` + string(unreadable) + `"}`,
		`{"version":1,"due_at":"` + string(unreadable) + `","message":{"to":["x@example.com"]}}`,
		`{"version":1,"deadline":"` + string(unreadable) + `","message":{"to":["x@example.com"]}}`,
		head + `{"subject":"` + string(unreadable) + `}`, head + `{"subject":{"x":"` + string(unreadable) + `"}}}`,
		head + `{"to":"` + string(unreadable) + `"}}`, head + `{"headers":["` + string(unreadable) + `"]}}`,
		head + `{"headers":{"X-Code":"` + string(unreadable) + `\r\nBcc: x@example.com"},"to":["x@example.com"],"message_id":"<1@x>","date":"2026-01-02T03:04:05Z"}}`,
		head + `{"date":"` + string(unreadable) + `"}}`, head + `{"attachments":[{"content":"` + string(unreadable) + `"}]}}`,
		head + `{"raw":"` + string(unreadable) + `"}}`, head + `{"to":["` + string(unreadable) + `@@@"],"message_id":"<2@x>","date":"2026-01-02T03:04:05Z"}}`,
	}
	for _, p := range payloads {
		if _, err := client.EnqueueContext(s.Context(), asynq.NewTask(wire.TaskType, []byte(p)), asynq.Queue("default")); err != nil {
			s.Fatal(err)
		}
	}
	mass := asynq.NewTask(wire.TaskTypeBulk, []byte(payloads[0]+"\n"))
	if _, err := client.EnqueueContext(s.Context(), mass, asynq.Queue("default:mass")); err != nil {
		s.Fatal(err)
	}
	return len(payloads) + 2 // one of many is told of as such, and then as a task of its own
}

// checkPages reads all that a worker shows.
func (s *site) checkPages(pages string) {
	s.Helper()
	for _, path := range []string{"", "status.json", "metrics", "healthz", "readyz"} {
		find(s.T, "/"+path, s.fetch(pages+path, string(httpToken)), everything())
		find(s.T, "/"+path+", unasked", s.fetch(pages+path, ""), everything())
	}
	shown := 0
	for _, queue := range []string{"default", "default:mass"} {
		for _, state := range []string{"pending", "active", "retry", "archived", "completed", "scheduled"} {
			got := s.fetch(pages+"monitor/api/queues/"+url.PathEscape(queue)+"/"+state+"_tasks?size=100", string(httpToken))
			shown += strings.Count(got, `"id":`)
			// asynqmon shows the subject and the names of attachments, so that a person can tell
			// one task from another.
			find(s.T, "/monitor/ of "+queue+", "+state, got, slices.Concat(credentials(), contents(), addresses()))
		}
	}
	if shown < 30 {
		s.Errorf("/monitor/ has shown %d tasks", shown)
	}
}

// checkRedis looks at all that is in Redis beside the messages themselves: why a try has
// failed, what the relay has answered, and the worker's own notes.
func (s *site) checkRedis() {
	s.Helper()
	marks := slices.Concat(credentials(), contents(), titles())
	client := s.redis.Client(s)
	reasons := s.checkTasks(client, marks)
	if reasons < 30 {
		s.Errorf("%d tasks have a reason", reasons)
	}
	keys, err := client.Keys(s.Context(), "*").Result()
	if err != nil {
		s.Fatal(err)
	}
	for _, key := range keys {
		find(s.T, "the key "+key, key, marks)
		if strings.Contains(key, "}:history:") {
			s.checkHistory(key, client.LRange(s.Context(), key, 0, -1).Val())
			continue
		}
		fields, err := client.HGetAll(s.Context(), key).Result()
		if err != nil {
			continue // no hash: a list or a number of asynq's, which has IDs alone
		}
		for name, value := range fields {
			if name != "msg" { // asynq's: the message, and what checkTasks has seen
				find(s.T, "Redis, "+key+" "+name, value, marks)
			}
		}
	}
}

// checkHistory looks at records of what has ended. They are kept when the messages are gone, so no address is in them.
func (s *site) checkHistory(key string, records []string) {
	s.Helper()
	if len(records) == 0 || !strings.Contains(strings.Join(records, ""), "***@example.") {
		s.Errorf("%s has %d entries, none with a masked recipient", key, len(records))
	}
	for _, r := range records {
		find(s.T, "Redis, "+key, r, everything())
	}
}

func (s *site) checkTasks(client redis.UniversalClient, marks []mark) (reasons int) {
	s.Helper()
	inspector := asynq.NewInspectorFromRedisClient(client)
	queues, err := inspector.Queues()
	if err != nil {
		s.Fatal(err)
	}
	for _, queue := range queues {
		for _, list := range []func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error){
			inspector.ListArchivedTasks, inspector.ListCompletedTasks, inspector.ListRetryTasks,
		} {
			infos, err := list(queue, asynq.PageSize(1000))
			if err != nil {
				s.Fatal(err)
			}
			for _, info := range infos {
				if info.LastErr != "" {
					reasons++
				}
				find(s.T, "LastErr", info.LastErr, slices.Concat(marks, addresses()))
				find(s.T, "the result", string(info.Result), marks)
			}
		}
	}
	return reasons
}

// TestLogin: a relay that refuses the login, and repeats it in each form.
func TestLogin(t *testing.T) {
	s := newSite(t, startRelay(t, true))
	code, said := s.run("", nil, "worker", "check")
	if code != 69 || !strings.Contains(said, "535 5.7.8 no such login") {
		t.Errorf("worker check: exit code %d\n%s", code, said)
	}
	find(t, "worker check", said, slices.Concat(credentials(), contents()))
	s.must("", "enqueue", "send", "--to", to("ok", "login"), "--subject", subjectText(), "--body", bodyText())
	w := s.worker(nil, "--trace")
	pages := w.pages()
	w.says("that it holds all mail", func(l logLine) bool { return strings.HasPrefix(l.Message, "relay takes no mail") })
	s.checkHeld(pages)
	find(t, "the log", w.stop(), everything())
}

func (s *site) checkHeld(pages string) {
	s.Helper()
	for _, path := range []string{"status.json", "metrics", "readyz"} {
		got := s.fetch(pages+path, string(httpToken))
		if path != "metrics" && !strings.Contains(got, "535") {
			s.Errorf("/%s does not say why: %s", path, got)
		}
		find(s.T, "/"+path, got, everything())
	}
}

// TestTrace: what "worker run --trace" prints of a conversation. What the server says is
// printed as it says it, for that is what the flag is for: but for logins and addresses.
func TestTrace(t *testing.T) {
	s := newSite(t, startRelay(t, false))
	var lines []any
	for _, m := range messages() {
		lines = append(lines, m)
	}
	s.must("", "enqueue", "bulk", file(t, "messages.jsonl", lines...))
	w := s.worker(nil, "--trace")
	w.ends(len(lines) + len(repeats()) - 1)
	log := w.stop()
	conversation := 0
	for line := range strings.Lines(log) {
		marks := everything()
		if strings.Contains(line, `"message":"S: `) {
			marks = slices.Concat(credentials(), addresses())
			conversation++
		}
		find(t, "the trace", line, marks)
	}
	if conversation < 100 || !strings.Contains(log, `"message":"C: RCPT TO:<o***@example.com>"`) {
		t.Errorf("no trace:\n%s", log)
	}
}

// TestShownAddresses: the setting shows addresses, and nothing else.
func TestShownAddresses(t *testing.T) {
	s := newSite(t, startRelay(t, false))
	s.must("", "enqueue", "bulk", file(t, "messages.jsonl", message("never", "address"), message("ok", "address"), message("rcpt", "address")))
	w := s.worker([]string{"EMAIL_LOG_SHOW_ADDRESSES=true"})
	w.ends(4)
	log := w.stop()
	find(t, "the log", log, slices.Concat(credentials(), contents(), titles()))
	for _, want := range []string{
		`"to":["` + to("ok", "address") + `","` + string(blindCopy) + `@example.org"]`, `<` + to("never", "address") + `>`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %s:\n%s", want, log)
		}
	}
}

// TestRedisAway: a Redis that goes away, and one that was never there.
func TestRedisAway(t *testing.T) {
	s := newSite(t, startRelay(t, false))
	w := s.worker(nil)
	w.pages()
	w.says("that it has started", func(l logLine) bool { return l.Message == "worker started" })
	s.redis.Kill()
	w.says("that something is wrong", func(l logLine) bool {
		return strings.Contains(l.Message, "connection refused") || strings.Contains(l.Message, "error")
	})
	for _, args := range [][]string{
		{"enqueue", "send", "--to", to("ok", "body"), "--subject", subjectText(), "--body", bodyText()},
		{"enqueue", "bulk", file(t, "messages.jsonl", message("ok", "body"))},
		{"enqueue", "dead", "list"}, {"worker", "check"}, {"worker", "run"},
	} {
		code, said := s.run("", nil, args[0], args[1:]...)
		if code != 69 {
			t.Errorf("%v: exit code %d\n%s", args, code, said)
		}
		marks := everything()
		if args[1] == "check" { // it shows the sender, which is a setting
			marks = slices.Concat(credentials(), contents(), titles())
		}
		find(t, strings.Join(args[:2], " "), said, marks)
		for line := range strings.Lines(said) {
			if args[0] == "enqueue" && !strings.HasPrefix(line, "enqueue: ") {
				t.Errorf("%v says beside its error: %s", args, line)
			}
		}
	}
	log := w.stop()
	if !strings.Contains(log, `"message":"go-redis: `) {
		t.Errorf("the log lacks what go-redis says:\n%s", log)
	}
	find(t, "the log", log, everything())
}

// TestBadInput: messages and settings that are refused.
func TestBadInput(t *testing.T) {
	s := newSite(t, startRelay(t, false))
	breaking := message("ok", "x")
	breaking.Headers["X-Code"] += "\r\nBcc: eve@example.com"
	long := message("ok", "x")
	long.Headers = map[string]string{"X-" + strings.Repeat("x", 100): headerText() + strings.Repeat("x", 2000)}
	for _, args := range [][]string{
		{"enqueue", "bulk", file(t, "a", breaking)}, {"enqueue", "bulk", file(t, "b", long)},
		{"enqueue", "bulk", file(t, "c", string(unreadable), `{"subject": "`+string(unreadable), `{"to": "`+string(unreadable)+`"}`, `{"headers": {"X-Code": ["`+string(unreadable)+`"]}}`, `{"date": "`+string(unreadable)+`"}`)},
		{"enqueue", "render", file(t, "d", breaking)},
		{"enqueue", "send", "--to", to("ok", "x"), "--subject", subjectText() + "\n" + bodyText(), "--body", bodyText()},
		{"enqueue", "send", "--to", to("ok", "x"), "--header", "X-Code: " + headerText() + "\nBcc: eve@example.com", "--body", bodyText()},
		{"enqueue", "send", "--to", to("ok", "x"), "--header", headerText(), "--body", bodyText()},
		{"enqueue", "send", "--to", to("ok", "x"), "--subject", subjectText(), "--body", bodyText(), "--process-at", "tomorrow"},
		{"enqueue", "send", "--subject", subjectText(), "--body", bodyText()},
		{"enqueue", "raw", to("ok", "x")},
	} {
		code, said := s.run("X-Raw: "+rawHeaderText()+"\x00\r\n\r\n"+rawBodyText(), nil, args[0], args[1:]...)
		if code == 0 {
			t.Errorf("%v was taken", args)
		}
		find(t, strings.Join(args[:2], " "), said, everything())
	}
}

func TestBadSettings(t *testing.T) {
	s := newSite(t, startRelay(t, false))
	secret := string(wrongSetting)
	for _, env := range [][]string{
		{"REDIS_URL=redis://mail:" + url.QueryEscape(secret) + "@" + s.redis.Addr()}, {"REDIS_URL=redis://mail:" + secret + "@" + s.redis.Addr()},
		{"REDIS_URL=redis://" + secret}, {"REDIS_URL=" + secret}, {"REDIS_URL=http://:" + secret + "@127.0.0.1"},
		{"REDIS_URL=redis://mail:" + secret + "%zz@" + s.redis.Addr()}, {"REDIS_URL=redis://" + s.redis.Addr() + "/" + secret},
		{"REDIS_URL=redis-sentinel://" + s.redis.Addr() + "/0?master=x&sentinel_password=" + url.QueryEscape(secret) + "&dial_timeout=1ms"},
		{"EMAIL_URL=smtp://shop:" + secret + "@relay.example.com", "EMAIL_HOST_PASSWORD=", "EMAIL_HOST_USER="}, {"EMAIL_URL=" + secret},
		{"EMAIL_WEBHOOK_URL=https://hook:" + secret + "@hooks.example.com:port/" + secret}, {"EMAIL_WEBHOOK_URL=https://127.0.0.1/" + url.PathEscape(secret)},
		{"EMAIL_WEBHOOK_URL=https://hooks.example.com/" + url.PathEscape(secret), "EMAIL_WEBHOOK_SECRET=" + secret},
		{"EMAIL_WEBHOOK_URL=https://hooks.example.com/" + url.PathEscape(secret), "EMAIL_WEBHOOK_SECRET=whsec_" + secret},
		{"EMAIL_HOST_PASWORD=" + secret}, {"EMAIL_HOST_PASSWORD=" + secret + "\n"}, {"EMAIL_HTTP_TOKEN=" + secret + "\n"},
		{"EMAIL_MAILERS=other", "EMAIL_OTHER_URL=smtp://shop:" + secret + "@relay.example.com:port"},
		{"EMAIL_OTHER_HOST_PASSWORD=" + secret}, {"EMAIL_HTTP_ADDR=0.0.0.0:0", "EMAIL_HTTP_PASSWORD=", "EMAIL_HTTP_TOKEN=", "EMAIL_HTTP_TOKN=" + secret},
	} {
		for _, args := range [][]string{{"worker", "check"}, {"enqueue", "dead", "count"}} {
			_, said := s.run("", env, args[0], args[1:]...)
			find(t, strings.Join(args, " ")+" with "+env[0], said, credentials())
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		w := s.worker(append(env, "EMAIL_CONNECTIONS=1"))
		select {
		case <-w.ended:
		case <-w.started():
		case <-ctx.Done():
			t.Errorf("the worker neither starts nor ends:\n%s", w.log())
		}
		cancel()
		find(t, "worker run with "+env[0], w.stop(), credentials())
	}
}
