package redisconn

import (
	"crypto/tls"
	"slices"
	"strings"
	"testing"
	"time"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, give string
		addrs      []string
		user, pass string
		db         int
		master     string
		tls        bool
	}{
		{"one server", "redis://ann:s%40cret@h:7000/2", []string{"h:7000"}, "ann", "s@cret", 2, "", false},
		{"default port", "redis://h", []string{"h:6379"}, "", "", 0, "", false},
		{"over TLS", "rediss://h:6380/1", []string{"h:6380"}, "", "", 1, "", true},
		{"a socket", "unix:///run/redis.sock?db=3", []string{"/run/redis.sock"}, "", "", 3, "", false},
		{"a cluster", "redis://ann:pw@a:1,b:2,c:3", []string{"a:1", "b:2", "c:3"}, "ann", "pw", 0, "", false},
		{"a cluster by one node", "redis://h?cluster=true", []string{"h:6379"}, "", "", 0, "", false},
		{"default ports", "rediss://a,[::1],c:3", []string{"a:6379", "[::1]:6379", "c:3"}, "", "", 0, "", true},
		{"sentinels over TLS", "rediss-sentinel://a,b:2?master=m", []string{"a:26379", "b:2"}, "", "", 0, "m", true},
		{"sentinels", "redis-sentinel://:pw@a:1,b:2/4?master=mymaster", []string{"a:1", "b:2"}, "", "pw", 4, "mymaster", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o, err := parseURL(tt.give)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(o.Addrs, tt.addrs) || o.Username != tt.user || o.Password != tt.pass ||
				o.DB != tt.db || o.MasterName != tt.master || (o.TLSConfig != nil) != tt.tls {
				t.Errorf("parseURL(%q) = %+v", tt.give, o)
			}
		})
	}
}

func TestParseURL_refuses(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "localhost:6379", "http://h", "redis://h:port", "redis-sentinel://a:1/0", "redis://ann:secret@h:70000000/0x", "redis://u:secret@%zz",
		"redis-sentinel://u:secret@a", "redis://u:secret@a?master=m", "redis://a?sentinel_password=secret",
		"redis://u:secret@a,b/1", "redis://u:secret@a?cluster=secret", "redis-sentinel://a?master=m&cluster=true",
		"redis://u:secret@a?cafile=/etc/hosts", "rediss://u:secret@a?cafile=/nowhere", "rediss://u:secret@a?cafile=redis_test.go",
		"rediss://u:secret@a?certfile=/nowhere", "unix://h/run/redis.sock", "redis://u:secret@a?tls=no"} {
		_, err := Connect(url)
		if err == nil {
			t.Errorf("Connect(%q): no error", url)
			continue
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("Connect(%q): the error shows the password: %v", url, err)
		}
	}
}

func TestParseURL_options(t *testing.T) {
	t.Parallel()
	o, err := parseURL("rediss-sentinel://u:p@a,b?master=m&sentinel_username=watch&sentinel_password=dog&pool_size=7&read_timeout=9s&client_name=me&max_active_conns=30")
	if err != nil {
		t.Fatal(err)
	}
	if o.SentinelUsername != "watch" || o.SentinelPassword != "dog" || o.PoolSize != 7 || o.ReadTimeout != 9*time.Second ||
		o.ClientName != "me" || o.MaxActiveConns != 30 {
		t.Errorf("got %+v", o)
	}
	if o.TLSConfig.ServerName != "" || o.TLSConfig.InsecureSkipVerify {
		t.Errorf("each server has to prove its own name: %+v", o.TLSConfig)
	}
}

func TestParseURL_verifies(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"rediss://h", "rediss://a,b", "rediss://h?cluster=1", "rediss-sentinel://a?master=m"} {
		o, err := parseURL(url)
		if err != nil {
			t.Fatal(err)
		}
		if o.TLSConfig.InsecureSkipVerify || o.TLSConfig.MinVersion != tls.VersionTLS12 {
			t.Errorf("parseURL(%q): %+v", url, o.TLSConfig)
		}
	}
}

// A server whose authority we do not know is not trusted.
func TestConnect_unknownAuthority(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{TLS: true})
	url, _, _ := strings.Cut(s.URL(), "?")
	client, err := Connect(url + "?max_retries=-1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if err := client.Ping(t.Context()).Err(); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("Ping = %v, want the authority refused", err)
	}
}
