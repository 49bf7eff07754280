package tasks

import (
	"slices"
	"strings"
	"testing"
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
	for _, url := range []string{"", "localhost:6379", "http://h", "redis://h:port", "redis-sentinel://a:1/0", "redis://ann:secret@h:70000000/0x", "redis://u:secret@%zz"} {
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
