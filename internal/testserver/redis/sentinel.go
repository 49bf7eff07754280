package redis

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/testserver"
)

// MasterName is what the sentinels call their master.
const MasterName = "mymaster"

// Sentinel is a master and a replica, and three sentinels that watch them and make the
// replica the master when two of them find the master gone: for a minute, since on a busy
// machine one may stand still, and in Failover for half a second.
type Sentinel struct {
	Servers   []*Server // the first one is the master at the start
	Sentinels []*Server

	password string // of the sentinels
}

// StartSentinel starts it all and waits until the sentinels know of the replica and of
// each other. With opts.Password the servers ask for it, and the sentinels for
// another one.
func StartSentinel(t testing.TB, opts Options) *Sentinel {
	t.Helper()
	if opts.Username != "" || opts.TLS {
		t.Fatal("redistest: sentinel: no user names and no TLS here")
	}
	opts.Config = append([]string{"repl-diskless-sync-delay 0"}, opts.Config...)
	if opts.Password != "" {
		opts.Config = append(opts.Config, "masterauth "+quote(opts.Password))
	}
	s := &Sentinel{}
	master := Start(t, opts)
	replica := opts
	replica.Config = append(slices.Clone(opts.Config), fmt.Sprintf("replicaof 127.0.0.1 %d", master.port))
	s.Servers = []*Server{master, Start(t, replica)}

	ctx, cancel := context.WithTimeout(context.Background(), testserver.Timeout)
	defer cancel()
	if err := s.Servers[1].poll(ctx, "replication", "role:slave", "master_link_status:up"); err != nil {
		t.Fatalf("redistest: sentinel: replica: %v", err)
	}
	watch := Options{sentinel: true, Config: s.watch(master.port, opts.Password)}
	if opts.Password != "" {
		s.password = "sentinel's " + opts.Password
		watch.Password = s.password
		watch.Config = append(watch.Config, "sentinel sentinel-pass "+quote(s.password))
	}
	for range 3 {
		s.Sentinels = append(s.Sentinels, start(t, watch, testserver.FreePort, "--sentinel"))
	}
	for _, one := range s.Sentinels {
		if err := one.poll(ctx, "sentinel", "status=ok", "slaves=1,sentinels=3"); err != nil {
			t.Fatalf("redistest: sentinel: %v", err)
		}
	}
	return s
}

func (s *Sentinel) watch(port int, password string) []string {
	lines := []string{
		fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d 2", MasterName, port),
		"sentinel down-after-milliseconds " + MasterName + " 60000",
		"sentinel failover-timeout " + MasterName + " 2000",
	}
	if password != "" {
		lines = append(lines, "sentinel auth-pass "+MasterName+" "+quote(password))
	}
	return lines
}

// URL is the address by the sentinels, as REDIS_URL wants it.
func (s *Sentinel) URL() string {
	addrs := make([]string, len(s.Sentinels))
	for i, one := range s.Sentinels {
		addrs[i] = one.Addr()
	}
	query := url.Values{"master": {MasterName}}
	if s.password != "" {
		query.Set("sentinel_password", s.password)
	}
	u := url.URL{Scheme: "redis-sentinel", Host: "hosts", Path: "/0", RawQuery: query.Encode()}
	if password := s.Servers[0].opts.Password; password != "" {
		u.User = url.UserPassword("", password)
	}
	return strings.Replace(u.String(), "hosts", strings.Join(addrs, ","), 1)
}

// Client returns a client of whichever is the master. It is closed when t ends.
func (s *Sentinel) Client(t testing.TB) *redis.Client {
	t.Helper()
	o := &redis.FailoverOptions{
		MasterName: MasterName, SentinelPassword: s.password, Password: s.Servers[0].opts.Password,
	}
	for _, one := range s.Sentinels {
		o.SentinelAddrs = append(o.SentinelAddrs, one.Addr())
	}
	c := redis.NewFailoverClient(o)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Failover ends the master with end, such as (*Server).Kill or (*Server).Pause, and
// returns when the replica is the master and the sentinels agree.
func (s *Sentinel) Failover(end func(*Server)) {
	t := s.Servers[0].t
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testserver.Timeout)
	defer cancel()
	for _, one := range s.Sentinels {
		if err := one.set(ctx, "down-after-milliseconds", 500); err != nil {
			t.Fatalf("redistest: failover: %v", err)
		}
	}
	end(s.Servers[0])
	if err := s.Servers[1].poll(ctx, "replication", "role:master"); err != nil {
		t.Fatalf("redistest: failover: %v", err)
	}
	for _, one := range s.Sentinels {
		if err := one.poll(ctx, "sentinel", "address="+s.Servers[1].Addr()); err != nil {
			t.Fatalf("redistest: failover: %v", err)
		}
	}
}

// set changes what a sentinel does about the master.
func (s *Server) set(ctx context.Context, option string, value any) error {
	opts := s.clientOptions()
	opts.DisableIdentity = true
	c := redis.NewClient(opts)
	defer func() { _ = c.Close() }()
	return c.Do(ctx, "SENTINEL", "SET", MasterName, option, value).Err()
}

// poll waits until a section of INFO holds all of want.
func (s *Server) poll(ctx context.Context, section string, want ...string) error {
	opts := s.clientOptions()
	opts.DisableIdentity = true
	c := redis.NewClient(opts)
	defer func() { _ = c.Close() }()
	return testserver.Poll(ctx, s.process, func() error {
		info, err := c.Info(ctx, section).Result()
		if err != nil {
			return err
		}
		for _, text := range want {
			if !strings.Contains(info, text) {
				return errors.New("no " + text + " in " + info)
			}
		}
		return nil
	})
}
