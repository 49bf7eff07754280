package tasks

import (
	"strings"
	"testing"
	"time"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// The clock of Redis is compared with this one, with half of the round trip taken off.
func TestSkew(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t, redistest.Options{}).Client(t)
	for _, off := range []time.Duration{0, 90 * time.Second, -90 * time.Second} {
		ahead, err := skew(t.Context(), client, func() time.Time { return time.Now().Add(off) })
		if err != nil || (ahead-off).Abs() > 500*time.Millisecond {
			t.Errorf("%v off: %v, %v", off, ahead, err)
		}
	}
}

// A worker reports the skew of its clock at its start, and warns of none that is small.
func TestWorker_skew(t *testing.T) {
	t.Parallel()
	h := newHouse(t, redistest.Options{})
	measured := make(chan time.Duration, 10)
	log := &lineCounter{}
	cfg := h.config()
	cfg.Observers, cfg.Logger = []Observer{{Skew: func(d time.Duration) { measured <- d }}}, log.logger()
	stop := h.start(cfg)
	if ahead := <-measured; ahead.Abs() > tolerable {
		t.Errorf("this machine's clock differs from itself by %v", ahead)
	}
	stop()
	for _, line := range log.all() {
		if strings.Contains(line, "clock") {
			t.Errorf("warned: %s", line)
		}
	}
}
