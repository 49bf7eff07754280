package redisconn

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// RefusedError is the error of a Redis that answers, and takes no mail and gives none out: it refuses to write.
type RefusedError struct {
	Server string // of a cluster: which master, or masters; empty for any other Redis
	Reason string // what is wrong with it, and what to do
	Err    error  // its reply
}

func (e *RefusedError) Error() string {
	server := "Redis"
	if e.Server != "" {
		server = "the master " + e.Server + " of the cluster"
	}
	return server + " " + e.Reason + ": " + e.Err.Error()
}

// Unwrap returns Redis's reply.
func (e *RefusedError) Unwrap() error { return e.Err }

// refusals say what the code of a reply means for a queue.
var refusals = map[string]string{ //nolint:gosec // words for a person, no credentials
	"READONLY":    "is a read-only replica and takes no mail: REDIS_URL has to name the master, or the sentinels",
	"OOM":         "is full and takes no mail: raise its maxmemory, or see what fills it",
	"MISCONF":     "cannot write to its disk and takes no mail: see its log, and the space on its disk",
	"NOREPLICAS":  "has too few replicas (min-replicas-to-write) and takes no mail until they are back",
	"MASTERDOWN":  "is a replica that has lost its master",
	"CLUSTERDOWN": "is a cluster that has lost some of its masters",
	"LOADING":     "is loading its data",
	"BUSY":        "is held up by a script that does not end",
	"NOPERM":      "does not let our user write: give it the rights that operations.md names",
	"NOAUTH":      "wants a password",
	"WRONGPASS":   "does not take our password",
}

// What TryWrite writes is gone at once.
const (
	probeKey   = "mailpouch:probe:"
	probeLasts = time.Millisecond
)

// TryWrite writes a small key that expires at once, in a cluster one to each master, and returns why that fails: a
// RefusedError if Redis refuses, and any other error if it does not answer. That Redis answers a PING says little: a
// replica does, and so does a Redis without memory or disk.
func TryWrite(ctx context.Context, client redis.UniversalClient) error {
	cluster, ok := Cluster(client)
	if !ok {
		return refused("", client.Set(ctx, probeKey+"0", "", probeLasts).Err())
	}
	keys, err := keysOfMasters(ctx, cluster)
	if err != nil {
		return refused("", err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for server, key := range keys {
		all.Go(func() {
			if err := refused(server, cluster.Set(ctx, key, "", probeLasts).Err()); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// Answers returns nil if Redis answers, be it that it cannot write to its disk, which it says to a PING too. What is
// wrong beyond that, TryWrite finds.
func Answers(ctx context.Context, client redis.UniversalClient) error {
	if err := client.Ping(ctx).Err(); err != nil && replyCode(err) != "MISCONF" {
		return Unavailable(err)
	}
	return nil
}

// keysOfMasters returns a key for each master of a cluster, by its address.
func keysOfMasters(ctx context.Context, cluster *redis.ClusterClient) (map[string]string, error) {
	var mu sync.Mutex
	masters := 0
	err := cluster.ForEachMaster(ctx, func(context.Context, *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		masters++
		return nil
	})
	if err != nil {
		return nil, err
	}
	const slots = 16384 // a master has some of them
	keys := make(map[string]string, masters)
	for i := 0; len(keys) < masters && i < slots; i++ {
		key := probeKey + strconv.Itoa(i)
		node, err := cluster.MasterForKey(ctx, key)
		if err != nil {
			return nil, err
		}
		if addr := node.Options().Addr; keys[addr] == "" {
			keys[addr] = key
		}
	}
	return keys, nil
}

// refused makes the RefusedError of a reply.
func refused(server string, err error) error {
	var reply redis.Error
	if err == nil || !errors.As(err, &reply) {
		return err
	}
	reason, ok := refusals[replyCode(err)]
	switch {
	case ok:
	case strings.HasPrefix(reply.Error(), "ERR max number of clients"):
		reason = "has as many clients as its maxclients allows"
	default:
		reason = "refuses to write"
	}
	return &RefusedError{Server: server, Reason: reason, Err: reply}
}
