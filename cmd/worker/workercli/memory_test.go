package workercli

import (
	"math"
	"testing"
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
