package producer

import (
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/internal/presence"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// What is known is believed for a while, and then asked again.
func TestVersions_forgets(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	client := server.Client(t)
	v := &versions{redis: client}
	if got := v.reads(t.Context()); got != (presence.Reads{Lowest: wire.Newest, Highest: wire.Newest}) {
		t.Errorf("without a worker they read %+v", got)
	}
	if err := presence.Announce(t.Context(), client, presence.Worker{ID: "old"}, nil, presence.Counts{}); err != nil {
		t.Fatal(err)
	}
	v.until = time.Now()
	if got := v.reads(t.Context()); got != (presence.Reads{Lowest: 1, Highest: 1}) {
		t.Errorf("an old worker reads %+v", got)
	}
}
