package chaos

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/intake"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// shortIntake is for every day. Its only worker is killed, and what waits for a minute then does not.
func shortIntake() plan {
	return plan{
		mails: 650, workers: 1, intakes: 2, span: 8 * time.Second, kills: 2, intakeKills: 4, intakeTerms: 2, crashes: 1, deadline: 4 * time.Minute,
		relay: faults{laterEvery: 90, cutOneIn: 90, refuseOne: 40, slowest: 20 * time.Millisecond, others: true},
	}
}

// fullIntake is what the promise of the intake is held against.
func fullIntake() plan {
	return plan{
		mails: 20_000, workers: 3, intakes: 2, span: 4 * time.Minute, kills: 18, terms: 6, intakeKills: 22, intakeTerms: 6, crashes: 3,
		absence: 20 * time.Second, deadline: 15 * time.Minute,
		relay: faults{laterEvery: 50, cutOneIn: 60, refuseOne: 200, slowest: 60 * time.Millisecond, others: true},
	}
}

// TestChaos_intake holds the promise from outside: programs hand mail in by SMTP and HTTP while the processes that take it in, and those that
// deliver it, are killed. What was acknowledged is delivered, once, and what became of each message is told.
func TestChaos_intake(t *testing.T) {
	p := fullIntake()
	if !*fullRun {
		t.Parallel()
		p = shortIntake()
	}
	server := redistest.Start(t, redistest.Options{AppendOnly: redistest.Always})
	client := server.Client(t)
	relay, hook := startRelay(t, *seedFlag, p.relay), startEndpoint(t)
	s, c := handedIn(t, server.URL(), relay, hook, p)
	ctx, cancel := context.WithTimeout(t.Context(), p.deadline)
	defer cancel()
	if p.workers == 1 {
		p.between = func() { waitFor(ctx, func() bool { return expireAll(ctx, client) == nil }) }
	}
	subscribe(ctx, t, client)
	logs := logsOf(t, s)
	fleet := startFleet(t, s, p, logs, 4*time.Minute)
	intakes := startIntakes(t, s, p, logs)

	start := time.Now()
	var programs sync.WaitGroup
	programs.Go(func() { c.run(ctx) })
	for _, e := range p.schedule(*seedFlag) {
		if !until(ctx, start.Add(e.at)) {
			break
		}
		act(e, p, server, relay, fleet, intakes)
	}
	programs.Wait()
	inspector := asynq.NewInspectorFromRedisClient(client)
	finished := waitFor(ctx, func() bool { return idle(inspector) })
	events := allEvents(ctx, t, client)
	if !waitFor(ctx, func() bool { return hook.has(events) }) {
		t.Errorf("the endpoint was not told of all events: %s", hook.lacks(t.Context(), client, events))
	}
	took := time.Since(start)
	intakes.stop()
	fleet.stop()

	r := newReports(t, c.load, relay, fleet, inspector)[0]
	r.finished = finished
	r.check(t)
	copies, dead := relay.books(), readQueues(t, inspector).dead
	killed, termed, _ := fleet.ends()
	killedIntakes, termedIntakes, _ := intakes.ends()
	told, twice := stories(events)
	t.Logf("seed %d: %d messages, %d handed in again, %d copies too many of at most %d; %d workers and %d intakes killed, %d and %d stopped; %d events, posted %d times; %v\n%s",
		*seedFlag, p.mails, c.load.again, r.twice, r.allowed(), killed, killedIntakes, termed, termedIntakes, len(events), hook.posts, took.Round(time.Second),
		intakeTable(c.load, c.denied, copies, dead))

	complain(t, "events do not tell what has happened", verdicts(c.load, c.denied, copies, dead, told))
	complain(t, "events were written twice", twice)
	complain(t, "the endpoint got what it should not have", hook.strangers(events))
	complain(t, "bytes are others than were handed in", changed(copies))
	if len(c.load.tasks) < p.mails/2 || p.intakeKills > 0 && killedIntakes == 0 || *fullRun && killed+killedIntakes < 30 {
		t.Errorf("%d of %d messages were acknowledged, %d workers and %d intakes killed: that shows nothing", len(c.load.tasks), p.mails, killed, killedIntakes)
	}
}

func complain(t *testing.T, what string, wrong []string) {
	t.Helper()
	for _, w := range wrong[:min(20, len(wrong))] {
		t.Errorf("%s: %s", what, w)
	}
	if len(wrong) > 20 {
		t.Errorf("%s: %d in all", what, len(wrong))
	}
}

// changed are the messages that did not arrive with the bytes with which they were handed in.
func changed(all map[int][]keptCopy) (wrong []string) {
	for number, copies := range all {
		if !isFinished(number) {
			continue
		}
		want := sha256.Sum256(finished(number))
		if slices.ContainsFunc(copies, func(c keptCopy) bool { return c.plain != want }) {
			wrong = append(wrong, fmt.Sprintf("message %d (%s)", number, programs()[programOf(number)].name))
		}
	}
	return wrong
}

// handedIn is ours with intakes, and the programs that use them.
func handedIn(t *testing.T, redisURL string, relay *relay, hook *endpoint, p plan) (*stack, *clients) {
	t.Helper()
	s := oursWith(t, buildWorker(t), redisURL, relay)
	key, secret := intake.NewKey("shop")
	line, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, line, 0o600); err != nil {
		t.Fatal(err)
	}
	s.name, s.sum = "intake", nil // the Received field is known to the intake alone
	deliver := s.command
	s.command = func(w setup) *exec.Cmd {
		cmd := deliver(w)
		cmd.Env = append(cmd.Env, "EMAIL_WEBHOOK_URL="+hook.server.URL+"/events", "EMAIL_WEBHOOK_ALLOW_PRIVATE=true",
			"EMAIL_WEBHOOK_SECRET=whsec_"+base64.StdEncoding.EncodeToString([]byte(rand.Text())))
		return cmd
	}
	c := &clients{
		load: newLoad(s, p), secret: secret, denied: map[int]bool{},
		client: &http.Client{Timeout: patience, Transport: &http.Transport{}},
	}
	t.Cleanup(c.client.CloseIdleConnections)
	for range p.intakes {
		c.smtp, c.http = append(c.smtp, freeAddr(t)), append(c.http, freeAddr(t))
	}
	s.intake = func(w setup) *exec.Cmd {
		cmd := deliver(w)
		cmd.Args[len(cmd.Args)-1] = "intake"
		cmd.Env = append(cmd.Env, "EMAIL_EVENTS=true", "EMAIL_API_KEYS_FILE="+keys,
			"EMAIL_SUBMISSION_ADDR="+c.smtp[w.slot], "EMAIL_API_ADDR="+c.http[w.slot])
		return cmd
	}
	return s, c
}

// buildWorker builds the worker command.
func buildWorker(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "worker")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../../cmd/worker").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// startIntakes starts the processes that take mail in. A successor begins when the process before it is gone, for it has the same address.
func startIntakes(t *testing.T, s *stack, p plan, logs string) *fleet {
	t.Helper()
	f := &fleet{
		t: t, stack: s, logs: logs, patient: time.Minute, usable: p.intakes, between: func() {},
		slots: make([]*worker, p.intakes), fates: map[string]string{}, initial: "i", command: s.intake,
	}
	return f.begin()
}

// freeAddr is an address of this machine whose port is free, and below those that the system gives away: it is to be free again whenever the process
// there has ended.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		var b [2]byte
		_, _ = rand.Read(b[:]) // it never fails
		addr := fmt.Sprintf("127.0.0.1:%d", 10_000+(int(b[0])<<8+int(b[1]))%20_000)
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close()
			return addr
		}
	}
	t.Fatal("found no free port")
	return ""
}

// expireAll lets the leases of all tasks run out, and lets others have the events of all workers. There is to be none.
func expireAll(ctx context.Context, client redis.UniversalClient) error {
	now, err := client.Time(ctx).Result()
	if err != nil {
		return err
	}
	leases, err := client.Keys(ctx, "asynq:{*}:lease").Result()
	if err != nil {
		return err
	}
	for _, lease := range leases {
		ids, err := client.ZRange(ctx, lease, 0, -1).Result()
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := client.ZAddXX(ctx, lease, redis.Z{Score: float64(now.Add(-time.Minute).Unix()), Member: id}).Err(); err != nil {
				return err
			}
		}
	}
	return leave(ctx, client)
}
