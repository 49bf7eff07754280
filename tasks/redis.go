package tasks

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Connect returns a client for the Redis at rawURL. It opens no connection yet.
//
//	redis://user:password@host:6379/0     one server
//	rediss://host:6380/0                  the same over TLS
//	unix:///run/redis.sock?db=0           a unix socket
//	redis-sentinel://host1:26379,host2:26379/0?master=mymaster
//	redis://host1:6379,host2:6379         a cluster, by some of its nodes
//
// asynq's own parser drops the user name, so the URL is read here and asynq is
// handed the client.
func Connect(rawURL string) (redis.UniversalClient, error) {
	opts, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	return redis.NewUniversalClient(opts), nil
}

// ConnectWorker is Connect for a process that must outlive a restart of Redis: its
// commands are tried again for about half a minute before they fail. A task whose
// completion cannot be recorded is delivered again, so patience is what keeps a
// short outage from doubling mail.
func ConnectWorker(rawURL string) (redis.UniversalClient, error) {
	opts, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	opts.MaxRetries = 60
	opts.MinRetryBackoff = 50 * time.Millisecond
	opts.MaxRetryBackoff = 500 * time.Millisecond
	return redis.NewUniversalClient(opts), nil
}

func parseURL(rawURL string) (*redis.UniversalOptions, error) {
	scheme, rest, _ := strings.Cut(rawURL, "://")
	switch scheme {
	case "redis", "rediss", "unix":
	case "redis-sentinel":
		return parseSentinelURL("redis://" + rest)
	default:
		return nil, errors.New("tasks: REDIS_URL: want redis://, rediss://, unix:// or redis-sentinel://")
	}
	first, addrs := splitHosts(rawURL)
	o, err := redis.ParseURL(first)
	if err != nil {
		return nil, fmt.Errorf("tasks: REDIS_URL: %w", withoutURL(err))
	}
	u := universal(o)
	if len(addrs) > 1 {
		u.Addrs = addrs
	}
	return u, nil
}

func parseSentinelURL(rawURL string) (*redis.UniversalOptions, error) {
	first, addrs := splitHosts(rawURL)
	parsed, err := url.Parse(first)
	if err != nil {
		return nil, fmt.Errorf("tasks: REDIS_URL: %w", withoutURL(err))
	}
	query := parsed.Query()
	master := query.Get("master")
	if master == "" {
		return nil, errors.New("tasks: REDIS_URL: redis-sentinel:// needs ?master=NAME")
	}
	query.Del("master")
	parsed.RawQuery = query.Encode()
	o, err := redis.ParseURL(parsed.String())
	if err != nil {
		return nil, fmt.Errorf("tasks: REDIS_URL: %w", withoutURL(err))
	}
	u := universal(o)
	u.Addrs, u.MasterName = addrs, master
	return u, nil
}

// splitHosts takes "redis://user@a:1,b:2/0" apart: the same URL with the first host
// alone, and all of the addresses.
func splitHosts(rawURL string) (first string, addrs []string) {
	scheme, rest, _ := strings.Cut(rawURL, "://")
	authority, path := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	user, hosts := "", authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user, hosts = authority[:i+1], authority[i+1:]
	}
	addrs = strings.Split(hosts, ",")
	return scheme + "://" + user + addrs[0] + path, addrs
}

func universal(o *redis.Options) *redis.UniversalOptions {
	u := &redis.UniversalOptions{
		Addrs: []string{o.Addr}, DB: o.DB, Username: o.Username, Password: o.Password,
		DialTimeout: o.DialTimeout, ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout,
		PoolSize: o.PoolSize, MaxRetries: o.MaxRetries,
	}
	if o.TLSConfig != nil {
		u.TLSConfig = o.TLSConfig.Clone()
		u.TLSConfig.MinVersion = tls.VersionTLS12
	}
	return u
}

// withoutURL drops the URL that url.Error repeats: it may hold a password.
func withoutURL(err error) error {
	var parse *url.Error
	if errors.As(err, &parse) {
		return parse.Err
	}
	return err
}
