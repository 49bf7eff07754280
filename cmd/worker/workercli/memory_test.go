package workercli

import (
	"math"
	"testing"

	"github.com/mailpouch/mailpouch/settings"
)

func TestCollection(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		messages int
		env      map[string]string
		percent  int
		limit    int64
	}{
		{"by itself", 256_000_000, nil, 200, 384_000_000},
		{"little memory", 1000, nil, 200, 64_001_250},
		{"no limit", -1, nil, 200, -1},
		{"the environment says how often", 256_000_000, map[string]string{"GOGC": "off"}, 0, 384_000_000},
		{"the environment says how much", 256_000_000, map[string]string{"GOMEMLIMIT": "1GiB"}, 200, -1},
		{"more than there is", math.MaxInt, nil, 200, math.MaxInt64},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			percent, limit := collection(tt.messages, func(name string) string { return tt.env[name] })
			if percent != tt.percent || limit != tt.limit {
				t.Errorf("collection = %d %%, %d bytes; want %d %%, %d", percent, limit, tt.percent, tt.limit)
			}
		})
	}
}

// What is taken in from other programs counts beside what is sent.
func TestWithIntake(t *testing.T) {
	t.Parallel()
	s := settings.Default()
	s.Intake.Memory = 10_000_000
	for _, tt := range []struct {
		smtp, api bool
		messages  int
		want      int
	}{
		{false, false, 1000, 1000}, {true, false, 1000, 30_001_000}, {false, true, 0, 3 * 4 * 64 << 20}, {true, true, -1, -1},
	} {
		s.Intake.Submission, s.Intake.API = nil, ""
		if tt.smtp {
			s.Intake.Submission = settings.Listeners{{Network: "unix", Address: "/s"}}
		}
		if tt.api {
			s.Intake.API = "127.0.0.1:0"
		}
		if got := withIntake(tt.messages, s); got != tt.want {
			t.Errorf("%+v: %d", tt, got)
		}
	}
}
