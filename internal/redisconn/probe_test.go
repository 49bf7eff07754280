package redisconn

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

// breakage makes a Redis refuse to write while it answers.
type breakage struct {
	name        string
	code, says  string // of the error
	break_, fix func(t *testing.T, s *redistest.Server, c *redis.Client)
}

// breakages are the ways in which a Redis that answers refuses to write.
func breakages() []breakage {
	set := func(name, value string) func(*testing.T, *redistest.Server, *redis.Client) {
		return func(t *testing.T, _ *redistest.Server, c *redis.Client) {
			t.Helper()
			if err := c.ConfigSet(t.Context(), name, value).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	replicaOf := func(host, port string) func(*testing.T, *redistest.Server, *redis.Client) {
		return func(t *testing.T, _ *redistest.Server, c *redis.Client) {
			t.Helper()
			if err := c.ReplicaOf(t.Context(), host, port).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return []breakage{
		{"a replica", "READONLY", "is a read-only replica", replicaOf("127.0.0.1", "1"), replicaOf("NO", "ONE")},
		{"full", "OOM", "is full", set("maxmemory", "1"), set("maxmemory", "0")},
		{"without replicas", "NOREPLICAS", "too few replicas", set("min-replicas-to-write", "1"), set("min-replicas-to-write", "0")},
		{
			"without a disk", "MISCONF", "cannot write to its disk",
			func(t *testing.T, s *redistest.Server, c *redis.Client) {
				t.Helper()
				set("save", "3600 1")(t, s, c)
				if err := os.MkdirAll(filepath.Join(s.Dir(), "dump.rdb", "in the way"), 0o700); err != nil {
					t.Fatal(err)
				}
				save(t, c, "err")
			},
			func(t *testing.T, s *redistest.Server, c *redis.Client) {
				t.Helper()
				if err := os.RemoveAll(filepath.Join(s.Dir(), "dump.rdb")); err != nil {
					t.Fatal(err)
				}
				save(t, c, "ok")
			},
		},
	}
}

// save has Redis write a snapshot, and waits until that has ended so.
func save(t *testing.T, c *redis.Client, status string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		_ = c.BgSave(ctx).Err() // another one may be under way
		if strings.Contains(c.Info(ctx, "persistence").Val(), "rdb_last_bgsave_status:"+status) {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	t.Fatalf("no snapshot has ended with %s", status)
}

// A Redis that answers a PING and refuses to write is found out, with what is wrong, and so is its recovery.
func TestTryWrite(t *testing.T) {
	t.Parallel()
	for _, tt := range breakages() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t, redistest.Options{})
			client, err := ConnectStatus(s.URL())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = client.Close() }()
			if err := TryWrite(t.Context(), client); err != nil {
				t.Fatalf("a Redis that is well: %v", err)
			}
			<-time.After(2 * probeLasts)
			if keys := client.Keys(t.Context(), "*").Val(); len(keys) > 0 {
				t.Errorf("left behind: %v", keys)
			}
			tt.break_(t, s, s.Client(t))
			if err := client.Ping(t.Context()).Err(); err != nil && !isReply(err) { // without a disk it answers that with MISCONF
				t.Fatalf("it is to answer a PING: %v", err)
			}
			var refused *RefusedError
			if err := TryWrite(t.Context(), client); !errors.As(err, &refused) {
				t.Fatalf("%v, want a RefusedError", err)
			}
			if got := refused.Error(); !strings.Contains(got, tt.says) || !strings.Contains(got, tt.code) {
				t.Errorf("%q, want %q and the code %s in it", got, tt.says, tt.code)
			}
			checkRefuses(t, client, tt.says)
			tt.fix(t, s, s.Client(t))
			if err := TryWrite(t.Context(), client); err != nil {
				t.Errorf("recovered: %v", err)
			}
		})
	}
}

// checkRefuses checks that Check says so too.
func checkRefuses(t *testing.T, client redis.UniversalClient, says string) {
	t.Helper()
	found, err := Check(t.Context(), client)
	if err == nil {
		err = found.Refuses
	}
	if err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(says, "is a read-only ")) {
		t.Errorf("Check: %v, want %q", err, says)
	}
}

// Of a cluster each master is tried, and the one that refuses is named.
func TestTryWrite_cluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3, redistest.Options{})
	client, err := ConnectStatus(c.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if err := TryWrite(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Masters {
		if stats := s.Client(t).Info(t.Context(), "commandstats").Val(); !strings.Contains(stats, "cmdstat_set:calls=1,") {
			t.Errorf("%s was not written to, or more than once: %s", s.Addr(), stats)
		}
	}
	for _, s := range c.Masters {
		node := s.Client(t)
		node.ConfigSet(t.Context(), "maxmemory", "1")
		var refused *RefusedError
		if err := TryWrite(t.Context(), client); !errors.As(err, &refused) || refused.Server != s.Addr() {
			t.Errorf("%v, want that %s is full", err, s.Addr())
		}
		node.ConfigSet(t.Context(), "maxmemory", "0")
	}
	if err := TryWrite(t.Context(), client); err != nil {
		t.Errorf("recovered: %v", err)
	}
}

// A Redis that says nothing is no refusal, and its context bounds the question.
func TestTryWrite_silent(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{})
	client, err := ConnectStatus(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	var refused *RefusedError
	if err := TryWrite(ctx, client); err == nil || errors.As(err, &refused) {
		t.Errorf("%v, want that it does not answer", err)
	}
	if took := time.Since(start); took > statusTimeout {
		t.Errorf("took %v", took)
	}
}
