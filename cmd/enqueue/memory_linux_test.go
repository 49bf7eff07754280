package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// manyDead makes dead letters of so many bytes: most of them where asynq does not see them.
func manyDead(t *testing.T, client redis.UniversalClient, n, size int) {
	t.Helper()
	q := tasks.NewQueue(client, tasks.QueueConfig{BulkSize: 1})
	body := strings.Repeat("A line of a mail that nobody could deliver.\n", size/44)
	for i := range n {
		m := &mailer.EmailMessage{Subject: strconv.Itoa(i), Body: body, FromEmail: "shop@example.com", To: []string{"ann@example.com"}}
		if _, err := q.Enqueue(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	const script = `
for i, id in ipairs(redis.call("LRANGE", KEYS[1], 0, -1)) do
  redis.call("ZADD", i % 10 == 0 and KEYS[2] or KEYS[3], 1700000000 + math.floor(i / 100), id)
  redis.call("HSET", ARGV[1] .. id, "state", "archived")
end
redis.call("DEL", KEYS[1])
return 0`
	keys := []string{"asynq:{default}:pending", "asynq:{default}:archived", wire.DeadKey("default")}
	if err := client.Eval(t.Context(), script, keys, "asynq:{default}:t:").Err(); err != nil {
		t.Fatal(err)
	}
}

// However many dead letters there are, the commands about them take little memory.
func TestDead_memory(t *testing.T) {
	const n, size, most = 2000, 50_000, 60_000_000 * raceFactor
	server := redistest.Start(t, redistest.Options{})
	client := server.Client(t)
	manyDead(t, client, n, size)
	for _, tt := range []struct {
		args  string
		lines int
		want  string // in the last line
	}{
		{"dead list", n + 1, "ann@example.com"},
		{"dead export", n, "nobody could deliver"},
		{"dead replay --all", 1, fmt.Sprintf("%d queued again", n)},
	} {
		t.Run(tt.args, func(t *testing.T) {
			c := exec.CommandContext(t.Context(), os.Args[0], strings.Fields(tt.args)...)
			c.Env = []string{asCommand + "=1", "REDIS_URL=" + server.URL(), "EMAIL_HOSTNAME=app.example.com"}
			c.Stderr = os.Stderr
			out, err := c.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan int, 1)
			go func() { ended <- peak(c.Process.Pid) }()
			lines, last := 0, ""
			s := bufio.NewScanner(out)
			for s.Buffer(nil, 1<<20); s.Scan(); lines++ {
				last = s.Text()
			}
			took := <-ended
			if err := c.Wait(); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d lines, at most %.1f MB", lines, float64(took)/1e6)
			if lines != tt.lines || !strings.Contains(last, tt.want) {
				t.Errorf("%d lines, want %d; the last one is %.200q", lines, tt.lines, last)
			}
			if took == 0 || took > most {
				t.Errorf("it took %d bytes, want at most %d", took, most)
			}
		})
	}
	if left, err := tasks.NewDeadLetters(client).Count(t.Context(), "default"); err != nil || left != 0 || pending(t, server, "default") != n {
		t.Errorf("%d dead letters left (%v), %d waiting", left, err, pending(t, server, "default"))
	}
}

// peak follows a process until it ends and returns the most memory that it has had (proc(5): VmHWM), in bytes. It is
// read every few milliseconds, since there is nothing to be read any more when the process has ended.
func peak(pid int) int {
	most := 0
	for ; ; time.Sleep(5 * time.Millisecond) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil || !bytes.Contains(status, []byte("VmHWM:")) {
			return most
		}
		_, rest, _ := bytes.Cut(status, []byte("VmHWM:"))
		kB, _ := strconv.Atoi(strings.Fields(string(rest))[0])
		most = max(most, kB<<10)
	}
}
