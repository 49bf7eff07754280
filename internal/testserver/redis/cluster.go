package redis

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/testserver"
)

// slots is how many parts the keys of a cluster are divided into.
const slots = 16384

// Cluster is a running Redis cluster of masters without replicas: when one is
// stopped, its part of the keys is away until it is started again.
type Cluster struct {
	Masters []*Server
}

// StartCluster starts n masters, joins them, and waits until each of them knows
// that all slots are served.
func StartCluster(t testing.TB, n int, opts Options) *Cluster {
	t.Helper()
	opts.Config = append([]string{"cluster-enabled yes", "cluster-node-timeout 15000"}, opts.Config...)
	if opts.TLS {
		opts.ca = newAuthority(t)
	}
	c := &Cluster{}
	for range n {
		c.Masters = append(c.Masters, start(t, opts, freeClusterPort))
	}
	ctx, cancel := context.WithTimeout(context.Background(), testserver.Timeout)
	defer cancel()
	if err := c.join(ctx); err != nil {
		t.Fatalf("redistest: cluster: %v", err)
	}
	return c
}

// freeClusterPort is a port that is free together with the one that the nodes talk to each other on.
func freeClusterPort() (int, error) { return testserver.FreePair(10_000) }

func (c *Cluster) join(ctx context.Context) error {
	n := len(c.Masters)
	clients := make([]*redis.Client, n)
	for i, s := range c.Masters {
		clients[i] = redis.NewClient(s.clientOptions())
		defer func() { _ = clients[i].Close() }()
		if err := clients[i].ClusterAddSlotsRange(ctx, i*slots/n, (i+1)*slots/n-1).Err(); err != nil {
			return err
		}
		if err := clients[i].Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err(); err != nil {
			return err
		}
	}
	for _, s := range c.Masters[1:] {
		if err := clients[0].ClusterMeet(ctx, "127.0.0.1", fmt.Sprint(s.port)).Err(); err != nil {
			return err
		}
	}
	return c.serves(ctx)
}

// WaitReady waits until all masters know that all slots are served, after one of them
// was away.
func (c *Cluster) WaitReady() {
	t := c.Masters[0].t
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testserver.Timeout)
	defer cancel()
	if err := c.serves(ctx); err != nil {
		t.Fatalf("redistest: cluster: %v", err)
	}
}

func (c *Cluster) serves(ctx context.Context) error {
	for _, s := range c.Masters {
		client := redis.NewClient(s.clientOptions())
		defer func() { _ = client.Close() }()
		size := fmt.Sprintf("cluster_size:%d\r", len(c.Masters))
		err := testserver.Poll(ctx, s.process, func() error {
			info, err := client.ClusterInfo(ctx).Result()
			if err == nil && (!strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, size)) {
				err = fmt.Errorf("not joined: %s", strings.Join(strings.Fields(info), " "))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// URL is the cluster's address, as REDIS_URL wants it.
func (c *Cluster) URL() string {
	addrs := make([]string, len(c.Masters))
	for i, s := range c.Masters {
		addrs[i] = s.Addr()
	}
	return strings.Replace(strings.Replace(c.Masters[0].URL(), addrs[0], strings.Join(addrs, ","), 1), "/0", "", 1)
}

// Client returns a client that is closed when t ends.
func (c *Cluster) Client(t testing.TB) *redis.ClusterClient {
	t.Helper()
	o := c.Masters[0].clientOptions()
	client := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: []string{o.Addr}, Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig,
	})
	t.Cleanup(func() { _ = client.Close() })
	return client
}
