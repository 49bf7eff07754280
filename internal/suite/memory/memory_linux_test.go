package memory

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

var full = flag.Bool("memory.full", false, "hold the worker against 500 mails of 10 MB and 200,000 small ones; needs 16 GB of memory")

const mb = 1000 * 1000

// load is what a worker has to carry.
type load struct {
	mails int
	size  int                                         // bytes of each mail's content
	part  func(*mailer.EmailMessage, *rand.Rand, int) // puts the content where it belongs
	env   []string                                    // further settings of the worker
	limit int                                         // of its memory, in bytes
}

// The parts in which a big mail may be big.
func attached(m *mailer.EmailMessage, r *rand.Rand, size int) {
	m.Attach("data.bin", noise(r, size), "")
}
func inBody(m *mailer.EmailMessage, r *rand.Rand, size int) { m.Body = text(r, size) }
func inHTML(m *mailer.EmailMessage, r *rand.Rand, size int) {
	m.AttachAlternative(text(r, size), "text/html")
}

func TestWorker_memory(t *testing.T) {
	tests := []struct {
		name string
		load load
	}{
		{"attachments", load{mails: 60, size: 5 * mb, part: attached, env: []string{"EMAIL_WORKER_MEMORY=40MB"}, limit: 200 * mb}},
		{"bodies", load{mails: 30, size: 5 * mb, part: inBody, env: []string{"EMAIL_WORKER_MEMORY=40MB"}, limit: 200 * mb}},
		{"small", load{mails: 10000, size: 2000, part: inBody, limit: 120 * mb}},
	}
	if *full {
		tests = []struct {
			name string
			load load
		}{
			{"attachments", load{mails: 500, size: 10 * mb, part: attached, limit: 600 * mb}},
			{"bodies", load{mails: 500, size: 10 * mb, part: inBody, limit: 600 * mb}},
			{"alternatives", load{mails: 500, size: 10 * mb, part: inHTML, limit: 600 * mb}},
			{"small", load{mails: 200000, size: 2000, part: inBody, limit: 120 * mb}},
		}
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { drain(t, tt.load) })
	}
}

// drain hands everything over, lets a worker deliver it, and looks at the worker.
func drain(t *testing.T, l load) {
	redis := redistest.Start(t, redistest.Options{})
	relay := startSink(t, l.mails)
	sums := l.enqueue(t, redis.URL())
	start := time.Now()
	worker := startWorker(t, redis.URL(), relay.addr, l.env)
	select {
	case <-relay.all:
	case <-worker.gone:
		t.Fatalf("the worker has ended: %s", worker.log())
	case <-time.After(10 * time.Minute):
		t.Fatalf("not all mails have come: %s", worker.log())
	}
	took := time.Since(start)
	peak := worker.peak(t)
	worker.stop(t)
	relay.stop()
	cpu := worker.cmd.ProcessState.UserTime() + worker.cmd.ProcessState.SystemTime()
	t.Logf("%d mails of %d bytes in %v (%.0f mails/s, %v of processor time each): the worker took %d MB at most",
		l.mails, l.size, took.Round(time.Millisecond), float64(l.mails)/took.Seconds(),
		(cpu / time.Duration(l.mails)).Round(time.Microsecond), peak/mb)
	if peak > l.limit {
		t.Errorf("the worker took %d bytes of memory, more than %d", peak, l.limit)
	}
	if relay.extra > 0 {
		t.Errorf("%d mails came more than once", relay.extra)
	}
	for rcpt, want := range sums {
		if relay.sums[rcpt] != want {
			t.Errorf("the mail to %s came with other bytes", rcpt)
		}
	}
}

// enqueue hands the mails over and returns the sums of what has to come, by recipient.
func (l load) enqueue(t *testing.T, redisURL string) map[string][sha256.Size]byte {
	t.Helper()
	client, err := tasks.Connect(redisURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	queue := tasks.NewQueue(client, tasks.QueueConfig{AttachmentThreshold: 64000})
	var mu sync.Mutex
	sums := map[string][sha256.Size]byte{}
	numbers := make(chan int)
	var producers sync.WaitGroup
	for range 4 {
		producers.Go(func() {
			for n := range numbers {
				m := l.message(n)
				h := sha256.New()
				_, err := m.WriteTo(h)
				if err == nil {
					_, err = queue.Enqueue(t.Context(), m)
				}
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				sums["TO:<"+m.To[0]+">"] = [sha256.Size]byte(h.Sum(nil))
				mu.Unlock()
			}
		})
	}
	for n := range l.mails {
		numbers <- n
	}
	close(numbers)
	producers.Wait()
	return sums
}

// message is mail number n.
func (l load) message(n int) *mailer.EmailMessage {
	m := &mailer.EmailMessage{
		Subject: fmt.Sprint("Mail no. ", n), FromEmail: "shop@example.com", To: []string{fmt.Sprintf("u%d@example.com", n)},
		Charset: "utf-8", MessageID: fmt.Sprintf("<%d@example.com>", n), Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	l.part(m, rand.New(rand.NewPCG(1, uint64(n))), l.size)
	return m
}

// noise is what no encoding but base64 can carry.
func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = append(b, byte(r.Uint32()), byte(r.Uint32()>>8), 0xff, byte(r.Uint32()>>16))
	}
	return b[:n]
}

// text is in German, so that it needs an encoding, and has dots where SMTP minds.
func text(r *rand.Rand, n int) string {
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, "%d Grüße und eine Zeile Text, weder lang noch kurz\n.und ein Punkt\n", r.Uint32())
	}
	return b.String()
}

// process is a worker.
type process struct {
	cmd  *exec.Cmd
	out  string        // its log
	gone chan struct{} // closed when it has ended
}

func startWorker(t *testing.T, redisURL, relay string, env []string) *process {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "worker")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../../cmd/worker").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	host, port, err := net.SplitHostPort(relay)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(bin, "run"), out: log.Name(), gone: make(chan struct{})}
	p.cmd.Env = append(plainEnvironment(), "REDIS_URL="+redisURL, "EMAIL_HOST="+host, "EMAIL_PORT="+port, "EMAIL_HTTP_ADDR=off")
	p.cmd.Env = append(p.cmd.Env, env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.gone)
		_ = p.cmd.Wait() // how it ended is in its log
		_ = log.Close()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.gone
	})
	return p
}

// plainEnvironment is ours without what would be settings, or Go's.
func plainEnvironment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "EMAIL_") && !strings.HasPrefix(v, "GOGC=") && !strings.HasPrefix(v, "GOMEMLIMIT=") {
			env = append(env, v)
		}
	}
	return env
}

func (p *process) log() []byte {
	text, _ := os.ReadFile(p.out)
	return text
}

// peak is the most memory that the process has had (proc(5): VmHWM), in bytes.
func (p *process) peak(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			kB, err := strconv.Atoi(string(bytes.Fields(rest)[0]))
			if err != nil {
				t.Fatal(err)
			}
			return kB << 10
		}
	}
	t.Fatalf("no VmHWM in %s", status)
	return 0
}

// stop tells the worker to end, which it does in order.
func (p *process) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.gone
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the worker has ended with %d: %s", code, p.log())
	}
}
