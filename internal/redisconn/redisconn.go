// Package redisconn connects to Redis: it makes a client of a URL, tries commands again while Redis is away, checks
// whether a Redis can be trusted with a queue, and has the error of one that is not available.
package redisconn

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Connect returns a client for the Redis at rawURL, whose forms tasks.Connect documents. It opens no connection yet.
//
// A command of it ends at the deadline of its context. asynq's own parser drops the user name, so the URL is read here
// and asynq is handed the client.
func Connect(rawURL string) (redis.UniversalClient, error) {
	opts, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	opts.ContextTimeoutEnabled = true
	return redis.NewUniversalClient(opts), nil
}

// ConnectWorker is Connect for a process that must outlive a restart of Redis: its commands are tried again for
// about half a minute before they fail. A task whose completion cannot be recorded is delivered again, so this is
// what keeps a short outage from doubling mail. Deadlines do not end them: asynq tries to write outcomes down with
// contexts that are over.
func ConnectWorker(rawURL string) (redis.UniversalClient, error) {
	opts, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	client := redis.NewUniversalClient(opts)
	client.AddHook(retryHook{total: 30 * time.Second, first: 50 * time.Millisecond, max: 500 * time.Millisecond})
	return client, nil
}

// statusTimeout is how long one command of a client that only looks may take.
const statusTimeout = 2 * time.Second

// ConnectStatus is Connect for a program that looks at the queue and has to answer
// soon: a command ends with its context, takes two seconds at most, and is not tried again.
func ConnectStatus(rawURL string) (redis.UniversalClient, error) {
	opts, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	opts.ContextTimeoutEnabled = true
	opts.MaxRetries, opts.DialerRetries = -1, 1
	opts.DialTimeout, opts.ReadTimeout, opts.WriteTimeout = statusTimeout, statusTimeout, statusTimeout
	opts.PoolSize, opts.MinIdleConns, opts.MaxIdleConns = 8, 0, 2
	return redis.NewUniversalClient(opts), nil
}

var errScheme = errors.New("tasks: REDIS_URL: want redis://, rediss://, unix://, redis-sentinel:// or rediss-sentinel://")

func parseURL(rawURL string) (*redis.UniversalOptions, error) {
	scheme, rest, _ := strings.Cut(rawURL, "://")
	plain, sentinel := strings.CutSuffix(scheme, "-sentinel")
	if plain != "redis" && plain != "rediss" && scheme != "unix" {
		return nil, errScheme
	}
	first, addrs := splitHosts(plain + "://" + rest)
	parsed, err := url.Parse(first)
	if err != nil {
		return nil, fmt.Errorf("tasks: REDIS_URL: %w", withoutURL(err))
	}
	if scheme == "unix" && parsed.Host != "" {
		return nil, errors.New("tasks: REDIS_URL: unix:// needs the path of a socket and no host")
	}
	own, query := takeOwn(parsed.Query())
	parsed.RawQuery = query.Encode()
	o, err := redis.ParseURL(parsed.String())
	if err != nil {
		return nil, fmt.Errorf("tasks: REDIS_URL: %w", withoutURL(err))
	}
	u := universal(o)
	switch {
	case sentinel:
		u.Addrs = withPort(addrs, "26379")
	case len(addrs) > 1:
		u.Addrs = withPort(addrs, "6379")
	}
	if err := own.apply(u, sentinel); err != nil {
		return nil, fmt.Errorf("tasks: REDIS_URL: %w", err)
	}
	u.Dialer = newDialer(u.TLSConfig).dial
	return u, nil
}

// ownParams are the query parameters that go-redis does not know.
type ownParams struct {
	master, sentinelUser, sentinelPassword string
	cafile, certfile, keyfile              string
	cluster                                string
}

func takeOwn(query url.Values) (ownParams, url.Values) {
	take := func(name string) string {
		defer query.Del(name)
		return query.Get(name)
	}
	return ownParams{
		master: take("master"), sentinelUser: take("sentinel_username"), sentinelPassword: take("sentinel_password"),
		cafile: take("cafile"), certfile: take("certfile"), keyfile: take("keyfile"),
		cluster: take("cluster"),
	}, query
}

func (p ownParams) apply(u *redis.UniversalOptions, sentinel bool) error {
	switch {
	case sentinel && p.master == "":
		return errors.New("redis-sentinel:// needs ?master=NAME")
	case !sentinel && p.master+p.sentinelUser+p.sentinelPassword != "":
		return errors.New("master and sentinel_... belong to redis-sentinel://")
	}
	u.MasterName, u.SentinelUsername, u.SentinelPassword = p.master, p.sentinelUser, p.sentinelPassword
	if p.cluster != "" {
		yes, err := strconv.ParseBool(p.cluster)
		if err != nil || sentinel {
			return errors.New("cluster has to be true or false, and does not go with redis-sentinel://")
		}
		u.IsClusterMode = yes
	}
	if isCluster(u) && u.DB != 0 {
		return errors.New("a cluster has only database 0")
	}
	return p.applyTLS(u)
}

func isCluster(u *redis.UniversalOptions) bool {
	return u.MasterName == "" && (u.IsClusterMode || len(u.Addrs) > 1)
}

func (p ownParams) applyTLS(u *redis.UniversalOptions) error {
	if u.TLSConfig == nil {
		if p.cafile+p.certfile+p.keyfile != "" {
			return errors.New("cafile, certfile and keyfile need rediss:// or rediss-sentinel://")
		}
		return nil
	}
	if u.MasterName != "" || isCluster(u) {
		u.TLSConfig.ServerName = "" // each server proves its own name
	}
	if p.cafile != "" {
		pem, err := os.ReadFile(p.cafile)
		if err != nil {
			return fmt.Errorf("cafile: %w", err)
		}
		u.TLSConfig.RootCAs = x509.NewCertPool()
		if !u.TLSConfig.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("cafile %s: no certificate in it", p.cafile)
		}
	}
	if p.certfile+p.keyfile != "" {
		pair, err := tls.LoadX509KeyPair(p.certfile, p.keyfile)
		if err != nil {
			return fmt.Errorf("certfile and keyfile: %w", err)
		}
		u.TLSConfig.Certificates = []tls.Certificate{pair}
	}
	return nil
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

func withPort(addrs []string, port string) []string {
	full := make([]string, len(addrs))
	for i, addr := range addrs {
		full[i] = addr
		if _, _, err := net.SplitHostPort(addr); err != nil {
			full[i] = net.JoinHostPort(strings.Trim(addr, "[]"), port)
		}
	}
	return full
}

func universal(o *redis.Options) *redis.UniversalOptions {
	u := &redis.UniversalOptions{
		Addrs: []string{o.Addr}, DB: o.DB, Username: o.Username, Password: o.Password,
		ClientName: o.ClientName, Protocol: o.Protocol,
		MaxRetries: o.MaxRetries, MinRetryBackoff: o.MinRetryBackoff, MaxRetryBackoff: o.MaxRetryBackoff,
		DialTimeout: o.DialTimeout, ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout,
		PoolFIFO: o.PoolFIFO, PoolSize: o.PoolSize, PoolTimeout: o.PoolTimeout, MaxConcurrentDials: o.MaxConcurrentDials,
		MinIdleConns: o.MinIdleConns, MaxIdleConns: o.MaxIdleConns, MaxActiveConns: o.MaxActiveConns,
		ConnMaxIdleTime: o.ConnMaxIdleTime, ConnMaxLifetime: o.ConnMaxLifetime, ConnMaxLifetimeJitter: o.ConnMaxLifetimeJitter,
		PipelinePoolSize:       o.PipelinePoolSize,
		PipelineReadBufferSize: o.PipelineReadBufferSize, PipelineWriteBufferSize: o.PipelineWriteBufferSize,
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
