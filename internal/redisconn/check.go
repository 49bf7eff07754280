package redisconn

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// CheckResult is what Check found, a line each. Of a cluster, it is what was found
// on any of its masters.
type CheckResult struct {
	// Warnings are settings that may lose mail that Redis has accepted.
	Warnings []string
	// Notes are what a person should know of settings that are a fair choice, and what
	// could not be found out.
	Notes []string
	// Refuses is why Redis takes no mail for now, though it could be used: it is full, say, or
	// has no disk. It is nil if all is well.
	Refuses error
}

// TryTLS connects to the first server of a URL that Connect takes, and returns a TLSError if it speaks TLS where the
// URL does not say so, or does not where it does. Of anything else that is wrong it says nothing. A client finds that out too, but in
// front of sentinels only after a minute.
func TryTLS(ctx context.Context, rawURL string) error {
	u, err := parseURL(rawURL)
	if err != nil || len(u.Addrs) == 0 || strings.HasPrefix(rawURL, "unix:") {
		return nil //nolint:nilerr // Connect says it
	}
	conn, err := u.Dialer(ctx, "tcp", u.Addrs[0])
	if err == nil {
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(silence))
		if _, err = conn.Write([]byte("PING\r\n")); err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
	}
	var other *TLSError
	if errors.As(err, &other) {
		return other
	}
	return nil
}

// minRedis is the oldest version that asynq's scripts run on: its ZRANGE ... BYSCORE is
// of 6.2.
var minRedis = [2]int{6, 2}

// Check asks a Redis, or each master of a cluster, whether it can be trusted with a queue. An
// error says that it cannot be used: it does not answer, is too old, is a replica, or is
// part of a cluster and the client is not told so. What Redis does not let us ask,
// as managed ones do, is in the Notes.
func Check(ctx context.Context, client redis.UniversalClient) (CheckResult, error) {
	if err := Answers(ctx, client); err != nil {
		return CheckResult{}, err
	}
	c, err := checkServers(ctx, client)
	if err != nil {
		return c, err
	}
	var refused *RefusedError
	if err := TryWrite(ctx, client); errors.As(err, &refused) {
		c.Refuses = err
	} else if err != nil {
		return c, Unavailable(err)
	}
	c.hints(ctx, client)
	return c, nil
}

// hintsProbe is a channel that nobody listens to.
const hintsProbe = "mailpouch:wake:probe"

// hints finds out whether the user may publish and hear hints. All works without, but slower.
func (c *CheckResult) hints(ctx context.Context, client redis.UniversalClient) {
	published := client.Publish(ctx, hintsProbe, "").Err()
	sub := client.Subscribe(ctx, hintsProbe)
	defer func() { _ = sub.Close() }()
	_, heard := sub.ReceiveTimeout(ctx, silence)
	for _, right := range []struct {
		name string
		err  error
	}{{"publish", published}, {"subscribe", heard}} {
		if right.err != nil && isDenied(right.err) {
			c.warn("Redis does not let our user %s to channels, so mail waits until a worker looks for it, 50 ms or more: give it the right (ACL: +%s &mailpouch:*): %v", right.name, right.name, right.err)
		}
	}
}

func checkServers(ctx context.Context, client redis.UniversalClient) (CheckResult, error) {
	cluster, ok := Cluster(client)
	if !ok {
		return checkServer(ctx, client, false)
	}
	var mu sync.Mutex
	var all CheckResult
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		one, err := checkServer(ctx, node, true)
		mu.Lock()
		defer mu.Unlock()
		all.Warnings = append(all.Warnings, one.Warnings...)
		all.Notes = append(all.Notes, one.Notes...)
		return err
	})
	for _, lines := range []*[]string{&all.Warnings, &all.Notes} {
		slices.Sort(*lines)
		*lines = slices.Compact(*lines)
	}
	return all, err
}

func checkServer(ctx context.Context, client redis.Cmdable, inCluster bool) (CheckResult, error) {
	var c CheckResult
	info, err := redisInfo(ctx, client)
	switch {
	case isReply(err):
		c.warn("Redis does not tell its version, role and memory policy: %v", err)
		return c, nil
	case err != nil:
		return c, Unavailable(err)
	case tooOld(info["redis_version"]):
		return c, fmt.Errorf("tasks: Redis is version %s: at least %d.%d is needed", info["redis_version"], minRedis[0], minRedis[1])
	case info["role"] == "slave":
		return c, fmt.Errorf("tasks: Redis is a replica of %s:%s: name the master or the sentinels", info["master_host"], info["master_port"])
	case info["cluster_enabled"] == "1" && !inCluster:
		return c, errors.New("tasks: Redis is part of a cluster: name several of its nodes, or add ?cluster=true")
	}
	config, err := redisConfig(ctx, client)
	if err != nil && !isReply(err) {
		return c, Unavailable(err)
	}
	if err != nil {
		c.note("Redis does not let CONFIG be read, so how often it writes to its disk is not known")
	}
	c.memory(info)
	c.persistence(info, config)
	c.replication(info, config)
	return c, nil
}

func (c *CheckResult) warn(format string, args ...any) {
	c.Warnings = append(c.Warnings, fmt.Sprintf(format, args...))
}

func (c *CheckResult) note(line string) { c.Notes = append(c.Notes, line) }

// nearlyFull is the part of Redis's memory, in percent, from which on we warn.
const nearlyFull = 80

func (c *CheckResult) memory(info map[string]string) {
	switch policy := info["maxmemory_policy"]; policy {
	case "noeviction":
	case "":
		c.note("Redis does not tell its maxmemory-policy: it has to be noeviction")
	default:
		c.warn("Redis has maxmemory-policy %s: when its memory is full it may throw mail away; set noeviction", policy)
	}
	limit, _ := strconv.ParseInt(info["maxmemory"], 10, 64)
	used, _ := strconv.ParseInt(info["used_memory"], 10, 64)
	if limit > 0 && used >= limit/100*nearlyFull {
		c.warn("Redis uses %d of the %d MB that maxmemory allows: when it is full it takes no mail and gives none out", used>>20, limit>>20)
	}
}

// persistence judges what is left of the queue after Redis was restarted. config is nil if
// it could not be read.
func (c *CheckResult) persistence(info, config map[string]string) {
	if info["aof_last_write_status"] == "err" || info["rdb_last_bgsave_status"] == "err" {
		c.warn("Redis could not write to its disk lately: it may refuse mail")
	}
	switch {
	case info["aof_enabled"] == "1":
		c.appendOnly(config["appendfsync"])
	case info["aof_enabled"] != "0":
		c.note("Redis does not tell whether appendonly is on")
	case config == nil:
		c.warn("Redis has appendonly off: a restart may lose the queue")
	case config["save"] == "":
		c.warn("Redis keeps nothing on disk: a restart loses the queue; set appendonly yes")
	default:
		c.warn("Redis keeps snapshots only: a crash loses the mail accepted since the last one; set appendonly yes")
	}
}

func (c *CheckResult) appendOnly(fsync string) {
	switch fsync {
	case "always":
		c.note("appendfsync always: a crash loses nothing that was accepted")
	case "everysec":
		c.note("appendfsync everysec: a crash of its machine loses up to the last second of accepted mail")
	case "no":
		c.note("appendfsync no: a crash of its machine loses what the system has not written yet, about half a minute")
	}
}

func (c *CheckResult) replication(info, config map[string]string) {
	replicas, _ := strconv.Atoi(info["connected_slaves"])
	if replicas > 0 && config["min-replicas-to-write"] == "0" {
		c.note("min-replicas-to-write 0: a master that is cut off from its replicas goes on accepting mail, which the failover loses")
	}
}

// redisInfo returns the fields of INFO that matter here.
func redisInfo(ctx context.Context, client redis.Cmdable) (map[string]string, error) {
	fields := map[string]string{}
	for _, section := range []string{"server", "replication", "memory", "persistence", "cluster"} {
		text, err := client.Info(ctx, section).Result()
		if err != nil {
			return nil, err
		}
		for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
			if name, value, ok := strings.Cut(lines.Text(), ":"); ok {
				fields[name] = value
			}
		}
	}
	return fields, nil
}

func redisConfig(ctx context.Context, client redis.Cmdable) (map[string]string, error) {
	config := map[string]string{}
	for _, name := range []string{"appendfsync", "save", "min-replicas-to-write"} {
		values, err := client.ConfigGet(ctx, name).Result()
		if err != nil {
			return nil, err
		}
		config[name] = values[name]
	}
	return config, nil
}

// tooOld is false for a version that cannot be read.
func tooOld(version string) bool {
	var v [2]int
	if n, _ := fmt.Sscanf(version, "%d.%d", &v[0], &v[1]); n < 2 {
		return false
	}
	return slices.Compare(v[:], minRedis[:]) < 0
}
