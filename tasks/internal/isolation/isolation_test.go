package isolation

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// Runs that were cut off by something else than the message's own doing are struck out by
// the process that lives, so only deaths count.
func TestIsolation_run(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	i := New(client, zerolog.Nop())
	defer i.Stop()
	const key = "asynq:{default}:t:X"
	client.HSet(t.Context(), key, "state", "active", wire.FieldLost, "3")
	read := func() string {
		all := client.HGetAll(t.Context(), key).Val()
		return fmt.Sprintf("lost=%s begun=%d", all[wire.FieldLost], strings.Count(all[wire.FieldAlone], " "))
	}
	dies := func() (int, error) {
		_, died, err := i.begin(t.Context(), key, "")
		return died, err
	}
	ends := func(do func() bool) func() (int, error) {
		return func() (died int, err error) {
			defer func() { _ = recover() }()
			return i.Run(t.Context(), key, "", do)
		}
	}
	givenBack := ends(func() bool { return false })
	for _, step := range []struct {
		name string
		do   func() (int, error)
		died int
		want string
	}{
		{"given back", givenBack, 0, "lost=3 begun=0"},
		{"a panic", ends(func() bool { panic("no death") }), 0, "lost=3 begun=0"},
		{"dies", dies, 0, "lost=3 begun=1"},
		{"given back by another", givenBack, 0, "lost=3 begun=1"},
		{"dies again", dies, 0, "lost=3 begun=2"},
		{"too often", ends(func() bool { t.Error("it ran"); return true }), 2, "lost=3 begun=2"},
	} {
		if died, _ := step.do(); died != step.died || read() != step.want {
			t.Errorf("%s: died = %d, %s, want %d, %s", step.name, died, read(), step.died, step.want)
		}
	}
	client.HDel(t.Context(), key, wire.FieldAlone)
	if _, err := i.Run(t.Context(), key, "", func() bool { return true }); err != nil || read() != "lost= begun=0" {
		t.Errorf("after a run with an end of its own: %s, %v", read(), err)
	}
	i.Forgive(t.Context(), key)
	i.Forgive(t.Context(), "asynq:{default}:t:gone")
	if client.Exists(t.Context(), "asynq:{default}:t:gone").Val() != 0 || read() != "lost=-1 begun=0" {
		t.Errorf("forgiven: %s", read())
	}
}
