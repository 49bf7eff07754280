package main

import (
	"os/user"
	"slices"
	"strings"
	"testing"

	"github.com/hibiken/asynq"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/tasks"
)

func TestArguments(t *testing.T) {
	tests := []struct {
		name       string
		argv, want []string
	}{
		{"as enqueue", []string{"/usr/bin/enqueue", "send"}, []string{"send"}},
		{"as sendmail", []string{"/usr/sbin/sendmail", "-t"}, []string{"raw", "-t"}},
		{"as sendmail, without a path", []string{"sendmail"}, []string{"raw"}},
		{"nothing", nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := arguments(tt.argv); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestParseSubmission(t *testing.T) {
	yes, no := true, false
	tests := []struct {
		args       string // separated by blanks
		sender     string // "-" if not given
		header     bool
		dots       bool
		recipients string
		long       string
	}{
		{"a@example.com b@example.com", "-", no, no, "a@example.com b@example.com", ""},
		{"-t", "-", yes, no, "", ""},
		{"-ti", "-", yes, yes, "", ""},
		{"-i -fann@example.com -- -x", "ann@example.com", no, yes, "-x", ""},
		{"-f ann@example.com -oi x", "ann@example.com", no, yes, "x", ""},
		{"-tfann@example.com", "ann@example.com", yes, no, "", ""},
		{"-r ann@example.com x", "ann@example.com", no, no, "x", ""},
		{"-FCronDaemon -i -B8BITMIME -oem root", "-", no, yes, "root", ""},
		{"-F Name -B 8BITMIME -o em -o i root", "-", no, yes, "root", ""},
		{"-O IgnoreDots=true x", "-", no, yes, "x", ""},
		{"-OIgnoreDots=false x", "-", no, no, "x", ""},
		{"-bm -N never -R hdrs -V id -h 3 -d0.1 -Ac -em -X /dev/null -v -m x", "-", no, no, "x", ""},
		{"-t --queue bulk --at-most-once -i --max-retry=3 x", "-", yes, yes, "x", "--queue bulk --at-most-once --max-retry=3"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			s, err := parseSubmission(strings.Fields(tt.args), func(long string) bool { return long == "queue" })
			if err != nil {
				t.Fatal(err)
			}
			sender := "-"
			if s.sender != nil {
				sender = *s.sender
			}
			if sender != tt.sender || s.fromHeader != tt.header || s.dots != tt.dots ||
				strings.Join(s.recipients, " ") != tt.recipients || strings.Join(s.long, " ") != tt.long {
				t.Errorf("got %+v from %q", s, sender)
			}
		})
	}
}

// received is a queued message as a worker would deliver it.
type received struct {
	from string
	to   []string
	data string
}

// takeQueued returns what waits in a queue, and empties it.
func takeQueued(t *testing.T, s *redistest.Server, queue string) []received {
	t.Helper()
	bury(t, s, queue)
	var all []received
	d := tasks.NewDeadLetters(s.Client(t))
	ids, err := d.IDs(t.Context(), queue)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		l, err := d.Get(queue, id)
		if err != nil || l.Message == nil {
			t.Fatalf("%v %s", err, l.Payload)
		}
		e, err := l.Message.Envelope()
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if _, err := l.Message.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		all = append(all, received{e.From, e.To, b.String()})
		if err := d.Delete(t.Context(), queue, id); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func runningUser(t *testing.T) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func TestRaw(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	const head = "From: F <f@example.com>\nDate: Fri, 02 Jan 2026 03:04:05 +0000\nMessage-ID: <1@example.com>\n"
	tests := []struct {
		name, args, in string
		from, to, data string
	}{
		{"recipients of the command line", "-f ann@example.com bob@example.com,root", head + "To: x@example.com\n\nbody\n.\n-- \n",
			"ann@example.com", "bob@example.com root@app.example.com", head + "To: x@example.com\n\nbody\n"},
		{"with -i a dot ends nothing", "-i x@example.com", head + "\n.\nbody\n", runningUser(t) + "@app.example.com", "x@example.com", head + "\n.\nbody\n"},
		{"recipients of the header", "-t -f ann@example.com", head + "To: a@example.com\nCc: B <b@example.com>, c\nBcc: d@example.com\n\n",
			"ann@example.com", "a@example.com b@example.com c@app.example.com d@example.com", head + "To: a@example.com\nCc: B <b@example.com>, c@app.example.com\n\n"},
		{"of both", "-t -f ann@example.com more@example.com", head + "To: a@example.com\n\n", "ann@example.com", "a@example.com more@example.com", head + "To: a@example.com\n\n"},
		{"of the resent message", "-t -f ann@example.com", "Resent-To: r@example.com\n" + head + "To: a@example.com\n\n",
			"ann@example.com", "r@example.com", "Resent-To: r@example.com\n" + head + "To: a@example.com\n\n"},
		{"null sender", "-f <> x@example.com", head + "\n", "", "x@example.com", head + "\n"},
		{"sender without domain", "-fann x@example.com", head + "\n", "ann@app.example.com", "x@example.com", head + "\n"},
		{"line of a mailbox file", "-f ann@example.com x@example.com", "From ann Fri Jan  2\n" + head + "\nFrom here\n", "ann@example.com", "x@example.com", head + "\nFrom here\n"},
		{"body without an empty line", "-f ann@example.com x@example.com", head + "Now: a\nhello, world\nb: c\n", "ann@example.com", "x@example.com", head + "Now: a\n\nhello, world\nb: c\n"},
		{"as cron calls it", "-FCronDaemon -i -B8BITMIME -oem -fcron root", head + "Subject: Cron <root@app> echo Grüße\nMIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n\nGrüße\n",
			"cron@app.example.com", "root@app.example.com", head + "Subject: =?utf-8?q?Cron_<root@app>_echo_Gr=C3=BC=C3=9Fe?=\nMIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n\nGrüße\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := enqueue(t, tt.in, append([]string{"raw"}, strings.Fields(tt.args)...)...)
			if got != (result{}) {
				t.Fatalf("%+v", got)
			}
			all := takeQueued(t, server, "default")
			if len(all) != 1 || all[0].from != tt.from || strings.Join(all[0].to, " ") != tt.to || all[0].data != crlf(tt.data) {
				t.Errorf("got\n%q, want\n%q from %q to %q", all, crlf(tt.data), tt.from, tt.to)
			}
		})
	}
}

func TestRaw_sender(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	tests := []struct {
		name, setting, args string
		envelope, header    string
	}{
		{"user", "", "-F Jö\"rg", "-", "=?utf-8?b?SsO2InJn?= <"},
		{"setting", "Shop <shop@example.com>", "", "shop@example.com", "Shop <shop@example.com>"},
		{"setting and a name", "Shop <shop@example.com>", "-F Cron", "shop@example.com", "Cron <shop@example.com>"},
		{"given", "Shop <shop@example.com>", "-f ann@example.com", "ann@example.com", "ann@example.com"},
		{"null", "Shop <shop@example.com>", "-f <>", "", "Shop <shop@example.com>"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("DEFAULT_FROM_EMAIL", tt.setting)
			args := append(append([]string{"raw"}, strings.Fields(tt.args)...), "--queue", "bulk", "-v", "x@example.com")
			if got := enqueue(t, "hello", args...); got.code != 0 || got.err != "" || strings.TrimSpace(got.out) == "" {
				t.Fatalf("%+v", got)
			}
			m := takeQueued(t, server, "bulk")[0]
			if m.from != tt.envelope && tt.envelope != "-" || !strings.HasPrefix(m.data, "From: "+tt.header) || !strings.HasSuffix(m.data, "\r\n\r\nhello") {
				t.Errorf("from %q:\n%s", m.from, m.data)
			}
		})
	}
}

func TestRaw_badInput(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	t.Setenv("EMAIL_MAX_MESSAGE_SIZE", "100kB")
	tests := []struct {
		name, args, in string
		code           int
		want           string
	}{
		{"nobody", "-i", "To: a@example.com\n\n", 64, "nobody to send to"},
		{"nobody in the header", "-t", "Subject: x\n\n", 65, "no To, Cc or Bcc"},
		{"a server", "-bs", "", 64, "-bs"},
		{"a daemon", "-bd -q30m", "", 64, "-bd"},
		{"the queue", "-bp", "", 64, "-bp"},
		{"run the queue", "-q", "", 64, "-q"},
		{"unknown letter", "-Z x@example.com", "", 64, "-Z: no such option"},
		{"no value", "-f", "", 64, "-f: a value is expected"},
		{"no value of a long one", "--queue", "", 64, "--queue: a value is expected"},
		{"unknown long one", "--nonsense x@example.com", "", 64, "unknown flag: --nonsense"},
		{"bad long one", "--process-in soon x@example.com", "", 64, "process_in"},
		{"option after the recipient", "x@example.com -t", "", 64, "-t: options come before"},
		{"bad recipient", "x@", "\n", 65, "to[0]"},
		{"bad recipient in the header", "-t", "To: a b\n\n", 65, "To"},
		{"bad sender", "-f x@ a@example.com", "\n", 65, "from_email"},
		{"control character in the header", "a@example.com", "Subject: x\ry\n\n", 65, "CR in the field Subject"},
		{"too big", "a@example.com", "\n" + strings.Repeat("line\n", 30_000), 65, "EMAIL_MAX_MESSAGE_SIZE"},
		{"too many fields", "a@example.com", strings.Repeat("a:\n", 20_000), 65, "raw: has a header of 20000 fields, at most 10000 are allowed"},
		{"too many fields, recipients in them", "-t", "To: a@example.com\n" + strings.Repeat("a:\n", 20_000), 65, "raw: has a header of 20001 fields"},
		{"too big on the wire", "a@example.com", "\n" + strings.Repeat("\n", 99_000), 65, "EMAIL_MAX_MESSAGE_SIZE"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := enqueue(t, tt.in, append([]string{"raw"}, strings.Fields(tt.args)...)...)
			if got.code != tt.code || !strings.Contains(got.err, tt.want) || strings.Count(got.err, "\n") != 1 || got.out != "" {
				t.Errorf("exit code %d, want %d and %q\n%s%s", got.code, tt.code, tt.want, got.err, got.out)
			}
			if n := pending(t, server, "default"); n != 0 {
				t.Errorf("%d queued", n)
			}
		})
	}
}

// What goes through the queue is one message in it, with its key.
func TestRaw_key(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("EMAIL_HOSTNAME", "app.example.com")
	first := enqueue(t, "hello", "raw", "-v", "--idempotency-key", "k", "a@example.com")
	again := enqueue(t, "hello", "raw", "-v", "--idempotency-key", "k", "a@example.com")
	other := enqueue(t, "good bye", "raw", "-v", "--idempotency-key", "k", "a@example.com")
	if first.code != 0 || first != again || other.code != 65 || pending(t, server, "default") != 1 {
		t.Errorf("%+v\n%+v\n%+v", first, again, other)
	}
	info, err := asynq.NewInspectorFromRedisClient(server.Client(t)).GetTaskInfo("default", strings.TrimSpace(first.out))
	if err != nil || !strings.Contains(string(info.Payload), `"raw":"`) {
		t.Errorf("%v %+v", err, info)
	}
}
