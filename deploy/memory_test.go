package deploy

import (
	"cmp"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/settings"
)

const mb = 1_000_000

// room is what a limit that kills has over the worker's own, in parts of it: Go's limit is one that it may pass.
const room = 4

// own is what a worker keeps itself to, as cmd/worker/workercli reckons.
func own(t *testing.T, messages int64) int64 {
	t.Helper()
	code, err := os.ReadFile("../cmd/worker/workercli/memory.go")
	if err != nil {
		t.Fatal(err)
	}
	number := func(name string) int64 {
		m := regexp.MustCompile(name + ` *= ([\d_]+)`).FindSubmatch(code)
		if m == nil {
			t.Fatalf("no %s in memory.go", name)
		}
		n, err := strconv.ParseInt(strings.ReplaceAll(string(m[1]), "_", ""), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return messages + messages/number("spareMemory") + number("ownMemory")
}

// takesIn is what a process takes in from other programs at once, over SMTP and HTTP, as cmd/worker/workercli reckons.
func takesIn() int64 { return 3*int64(settings.Default().Intake.Memory) + 4*64<<20 }

func size(t *testing.T, text string) int64 {
	t.Helper()
	var s settings.Size
	if err := s.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return int64(s)
}

// fits checks the memory that something lets a worker have before it kills it.
func fits(t *testing.T, what string, messages, limit int64) {
	t.Helper()
	least := own(t, messages)
	least += least / room
	if limit < least || limit > 2*least {
		t.Errorf("%s: a worker with EMAIL_WORKER_MEMORY=%dMB is killed at %d MB, want at least %d, and not twice as much", what, messages/mb, limit/mb, least/mb)
	}
}

// Each limit fits EMAIL_WORKER_MEMORY with room, and no second number has to follow it.
func TestMemory(t *testing.T) {
	t.Parallel()
	byDefault := int64(settings.Default().Worker.Memory)
	compose := loadCompose(t)
	worker := compose.Services["worker"]
	messages := byDefault
	if set := worker.Environment["EMAIL_WORKER_MEMORY"]; set != nil {
		messages = size(t, *set)
	}
	fits(t, "Compose", messages, int64(worker.MemLimit))
	if worker.Environment["GOMEMLIMIT"] != nil {
		t.Error("Compose: GOMEMLIMIT is set in place of the worker's own")
	}

	for _, name := range []string{"base", "keda", "hpa"} {
		c := build(t, name)
		container := c.deployment.Spec.Template.Spec.Containers[0]
		messages := size(t, cmp.Or(c.config.Data["EMAIL_WORKER_MEMORY"], fmt.Sprint(byDefault)))
		fits(t, "Kubernetes "+name, messages, container.Resources.Limits.Memory().Value())
		for _, v := range container.Env {
			if v.Name == "GOMEMLIMIT" {
				t.Errorf("Kubernetes %s: GOMEMLIMIT is set in place of the worker's own", name)
			}
		}
	}

	most := regexp.MustCompile(`(?m)^MemoryMax=(\d+)M$`).FindStringSubmatch(readUnit(t))
	if most == nil {
		t.Fatal("systemd: no MemoryMax in M")
	}
	mebibytes, err := strconv.ParseInt(most[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	messages = byDefault
	env, err := os.ReadFile("systemd/worker.env")
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`(?m)^EMAIL_WORKER_MEMORY=(.*)$`).FindSubmatch(env); m != nil {
		messages = size(t, string(m[1]))
	}
	fits(t, "systemd", messages, mebibytes<<20)
}

// The table in docs/operations.md says what the code does and what these files follow.
func TestMemory_table(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `(\\d+[MG]B)` \\| (\\d+) MB \\| (\\d+) MB \\|$").FindAllStringSubmatch(string(text), -1)
	if len(rows) < 3 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		keeps := own(t, size(t, row[1]))
		limit := keeps + keeps/room
		if row[2] != fmt.Sprint(keeps/mb) || row[3] != fmt.Sprint((limit+mb-1)/mb) {
			t.Errorf("%s: %s MB and %s MB, want %d and %d", row[1], row[2], row[3], keeps/mb, (limit+mb-1)/mb)
		}
	}
}

// Redis holds the queue beside the records of sent mail, and may need its memory twice while it rewrites its file.
func TestMemory_redis(t *testing.T) {
	t.Parallel()
	compose := loadCompose(t)
	redis := compose.Services["redis"]
	m := regexp.MustCompile(`--maxmemory (\d+)mb`).FindStringSubmatch(strings.Join(redis.Command, " "))
	if m == nil {
		t.Fatal("Redis has no maxmemory in mb")
	}
	mebibytes, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	most := mebibytes << 20
	if int64(redis.MemLimit) < 2*most {
		t.Errorf("Redis is killed at %d MB and may hold %d", int64(redis.MemLimit)/mb, most/mb)
	}
	history := int64(settings.Default().Worker.HistorySize)
	if set := compose.Services["worker"].Environment["EMAIL_HISTORY_SIZE"]; set != nil {
		history = size(t, *set)
	}
	if history > most/4 {
		t.Errorf("the records of sent mail may take %d MB of Redis's %d", history/mb, most/mb)
	}
}
