package redisconn

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
)

// A Redis that speaks TLS where the URL does not say so, and the reverse, are recognised, whatever is in front of them,
// and within seconds.
func TestConnect_tlsMismatch(t *testing.T) {
	t.Parallel()
	plain := redistest.Start(t, redistest.Options{Password: "secret"}).Addr()
	secure := redistest.Start(t, redistest.Options{TLS: true}).Addr()
	const sayPlain, sayTLS = "speaks no TLS, and REDIS_URL does: begin it with redis://", "speaks TLS, and REDIS_URL does not: begin it with rediss://"
	for _, tt := range []struct{ url, want string }{
		{"rediss://:secret@" + plain + "/0", sayPlain},
		{"rediss://" + plain + "," + plain, sayPlain},
		{"redis://" + secure + "/0", sayTLS},
		{"redis://" + secure + "/0?cluster=true", sayTLS},
	} {
		for name, connect := range map[string]func(context.Context) error{
			"a client": func(ctx context.Context) error {
				client, err := Connect(tt.url)
				if err != nil {
					return err
				}
				defer func() { _ = client.Close() }()
				return Answers(ctx, client)
			},
			"TryTLS": func(ctx context.Context) error { return TryTLS(ctx, tt.url) },
		} {
			t.Run(tt.url+" "+name, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				start := time.Now()
				err := connect(ctx)
				var other *TLSError
				if !errors.As(err, &other) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
					t.Errorf("%v, want %q", err, tt.want)
				}
				if name == "a client" && mailer.ClassOf(err) != mailer.Unavailable {
					t.Errorf("class %v", mailer.ClassOf(err))
				}
				t.Logf("after %v", time.Since(start).Round(time.Millisecond))
			})
		}
	}
}

func TestTryTLS(t *testing.T) {
	t.Parallel()
	plain := redistest.Start(t, redistest.Options{Password: "secret"})
	secure := redistest.Start(t, redistest.Options{TLS: true})
	gone := redistest.Start(t, redistest.Options{})
	gone.Stop()
	for _, tt := range []struct {
		url    string
		speaks bool // TLS, where it is to be said
		said   bool
	}{
		{plain.URL(), false, false},
		{"redis://:wrong@" + plain.Addr(), false, false},
		{secure.URL(), false, false},
		{"rediss://" + secure.Addr(), false, false}, // whose authority is not known: somebody else says so
		{gone.URL(), false, false},
		{"rediss://" + gone.Addr(), false, false},
		{"unix:///does/not/exist", false, false},
		{"http://x", false, false},
		{"rediss-sentinel://" + plain.Addr() + "/0?master=m", false, true},
		{"redis-sentinel://" + secure.Addr() + "/0?master=m", true, true},
	} {
		t.Run(tt.url, func(t *testing.T) {
			t.Parallel()
			err := TryTLS(t.Context(), tt.url)
			var other *TLSError
			if errors.As(err, &other) != tt.said || tt.said && other.Speaks != tt.speaks || !tt.said && err != nil {
				t.Errorf("%v", err)
			}
		})
	}
}

// A connection that was good and is lost is no reason to suspect anything.
func TestPlainConn_lostLater(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	client, err := Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	var other *TLSError
	if err := client.Ping(t.Context()).Err(); err == nil || errors.As(err, &other) {
		t.Errorf("%v", err)
	}
}
