package redisconn

import (
	"slices"
	"strings"
	"testing"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		opts     redistest.Options
		user     string // ACL rules of the user that asks; the default user if empty
		warnings []string
		notes    []string
	}{
		{name: "always", opts: redistest.Options{AppendOnly: redistest.Always}, notes: []string{"loses nothing"}},
		{name: "everysec", opts: redistest.Options{AppendOnly: redistest.EverySec}, notes: []string{"up to the last second"}},
		{name: "no fsync", opts: redistest.Options{AppendOnly: "no"}, notes: []string{"about half a minute"}},
		{name: "nothing kept", warnings: []string{"a restart loses the queue"}},
		{name: "snapshots", opts: redistest.Options{Config: []string{"save 3600 1"}}, warnings: []string{"snapshots only"}},
		{
			name: "eviction", opts: redistest.Options{AppendOnly: redistest.Always, MaxMemory: "100mb", MaxMemoryPolicy: "volatile-ttl"},
			warnings: []string{"maxmemory-policy volatile-ttl"}, notes: []string{"loses nothing"},
		},
		{
			name: "nearly full", opts: redistest.Options{AppendOnly: redistest.Always, MaxMemory: "1mb"},
			warnings: []string{"1 MB that maxmemory allows"}, notes: []string{"loses nothing"},
		},
		{
			name: "no right to CONFIG", opts: redistest.Options{AppendOnly: redistest.Always}, user: "+@all -config",
			notes: []string{"does not let CONFIG be read"},
		},
		{name: "no right to CONFIG, not on disk", user: "+@all -config", warnings: []string{"may lose the queue"}, notes: []string{"CONFIG"}},
		{name: "no right to channels", opts: redistest.Options{AppendOnly: redistest.Always}, user: "resetchannels +@all",
			warnings: []string{"not let our user publish", "not let our user subscribe"}, notes: []string{"loses nothing"}},
		{name: "no right to publish", opts: redistest.Options{AppendOnly: redistest.Always}, user: "+@all -publish",
			warnings: []string{"(ACL: +publish &mailpouch:*)"}, notes: []string{"loses nothing"}},
		{name: "no right to INFO", user: "+@all -info", warnings: []string{"does not tell its version"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.user != "" {
				tt.opts.Config = append(tt.opts.Config, "user asker on >pw ~* &* "+tt.user)
			}
			s := redistest.Start(t, tt.opts)
			url := s.URL()
			if tt.user != "" {
				url = "redis://asker:pw@" + s.Addr()
			}
			checkFinds(t, url, tt.warnings, tt.notes)
		})
	}
}

// checkFinds checks that Check finds exactly these lines, in this order.
func checkFinds(t *testing.T, url string, warnings, notes []string) {
	t.Helper()
	client, err := Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	got, err := Check(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	match := func(line, want string) bool { return strings.Contains(line, want) && !strings.Contains(line, "\n") }
	if !slices.EqualFunc(got.Warnings, warnings, match) {
		t.Errorf("warnings = %q, want %q", got.Warnings, warnings)
	}
	if !slices.EqualFunc(got.Notes, notes, match) {
		t.Errorf("notes = %q, want %q", got.Notes, notes)
	}
}

func TestCheck_away(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{})
	s.Stop()
	refuses(t, s.URL()+"?max_retries=-1", "connection refused")
}

func TestCheck_sentinel(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t, redistest.Options{Password: "s3cret", AppendOnly: redistest.Always})
	checkFinds(t, s.URL(), nil, []string{"loses nothing", "min-replicas-to-write 0"})
	refuses(t, s.Servers[1].URL(), "is a replica of 127.0.0.1:")
}

// What the masters of a cluster have in common is reported once.
func TestCheck_cluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3, redistest.Options{TLS: true, Password: "s3cret"})
	checkFinds(t, c.URL(), []string{"a restart loses the queue"}, nil)
	refuses(t, c.Masters[0].URL(), "part of a cluster")
}

func refuses(t *testing.T, url, want string) {
	t.Helper()
	client, err := Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if _, err := Check(t.Context(), client); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("err = %v, want %q in it", err, want)
	}
}

func TestTooOld(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]bool{"5.0.14": true, "6.0.16": true, "6.2.0": false, "7.0.15": false, "10.1": false, "": false, "unstable": false} {
		if got := tooOld(version); got != want {
			t.Errorf("tooOld(%q) = %v", version, got)
		}
	}
}
