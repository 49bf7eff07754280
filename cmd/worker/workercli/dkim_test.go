package workercli

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/internal/dkimkey"
	"github.com/mailpouch/mailpouch/settings"
)

// TestDKIM_key: a new key is in a file of its own that only its owner can read, and its record is printed, then and later.
func TestDKIM_key(t *testing.T) {
	dir := t.TempDir()
	for kind, length := range map[string]int{"rsa": 400, "ed25519": 60} {
		path := filepath.Join(dir, kind+".pem")
		args := []string{"dkim", "key", "--domain", "example.com", "--selector", kind + ".2026", "--type", kind, path}
		made := worker(t.Context(), t, backends.Builtin(), args...)
		if made.code != 0 {
			t.Fatalf("exit %d: %s", made.code, made.err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		key, err := dkimkey.Read(path)
		if err != nil {
			t.Fatal(err)
		}
		zone, rest, _ := strings.Cut(made.out, "\n\n")
		if zone != dkimkey.Zone(kind+".2026", "example.com", key) || len(dkimkey.Record(key)) < length {
			t.Errorf("got %s", zone)
		}
		for line := range strings.Lines(rest) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			t.Setenv(name, value)
		}
		if got := worker(t.Context(), t, backends.Builtin(), "dkim", "records"); got.out != zone+"\n" || got.code != 0 {
			t.Errorf("exit %d: %s%s", got.code, got.out, got.err)
		}
		before, _ := os.ReadFile(path)
		again := worker(t.Context(), t, backends.Builtin(), args...)
		if after, _ := os.ReadFile(path); again.code != 64 || !strings.Contains(again.err, path+" exists") || !bytes.Equal(before, after) {
			t.Errorf("exit %d: %s", again.code, again.err)
		}
	}
}

func TestDKIM_usage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	for want, args := range map[string][]string{
		"--domain:":   {"key", "--selector", "a", path},
		"--selector:": {"key", "--domain", "example.com", path},
		"--type:":     {"key", "--domain", "example.com", "--selector", "a", "--type", "dsa", path},
	} {
		got := worker(t.Context(), t, backends.Builtin(), append([]string{"dkim"}, args...)...)
		if got.code != 64 || !strings.Contains(got.err, want) {
			t.Errorf("%s: exit %d: %s", want, got.code, got.err)
		}
	}
	if got := worker(t.Context(), t, backends.Builtin(), "dkim", "records"); got.code != 78 || !strings.Contains(got.err, "EMAIL_DKIM_DOMAIN is not set") {
		t.Errorf("exit %d: %s", got.code, got.err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a key was written")
	}
}

// zone is a DNS server that has TXT records. A name without one does not exist; one that begins with "broken" fails.
type zone struct {
	mu      sync.Mutex
	records map[string][]string
}

func (z *zone) resolver(t *testing.T) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0") //nolint:noctx // it does not block
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		buf := make([]byte, 2<<10)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply := z.answer(buf[:n]); reply != nil {
				_, _ = conn.WriteTo(reply, from)
			}
		}
	})
	t.Cleanup(func() { _ = conn.Close(); serving.Wait() })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func (z *zone) answer(query []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	z.mu.Lock()
	texts, found := z.records[strings.TrimSuffix(strings.ToLower(q.Name.String()), ".")]
	z.mu.Unlock()
	reply := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true}, Questions: m.Questions}
	switch {
	case strings.HasPrefix(q.Name.String(), "broken"):
		reply.RCode = dnsmessage.RCodeServerFailure
	case !found:
		reply.RCode = dnsmessage.RCodeNameError
	}
	for _, text := range texts {
		var pieces []string
		for len(text) > 255 {
			pieces, text = append(pieces, text[:255]), text[255:]
		}
		reply.Answers = append(reply.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET, TTL: 1},
			Body:   &dnsmessage.TXTResource{TXT: append(pieces, text)},
		})
	}
	packed, err := reply.Pack()
	if err != nil {
		return nil
	}
	return packed
}

// TestCheck_keys: the DNS has to have the record of each key; what is wrong with it is said in one line, with what to publish.
func TestCheck_keys(t *testing.T) {
	key, err := newKey(kindRSA)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.pem")
	if err := writeKey(path, key); err != nil {
		t.Fatal(err)
	}
	record := dkimkey.Record(key)
	other, err := newKey(kindEd25519)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		selector string
		records  []string // nil: there is no such name
		good     bool
		want     string
	}{
		"good":        {"s", []string{record}, true, "DKIM s._domainkey.example.com: ok\n"},
		"others":      {"s", []string{"v=spf1 -all", record}, true, "ok\n"},
		"trial":       {"s", []string{"t=y; " + record}, true, "warning: the record has t=y"},
		"none":        {"s", nil, false, "the DNS has no such record, so no receiver can verify a signature; publish s._domainkey.example.com. IN TXT ( \"v=DKIM1"},
		"no DKIM":     {"s", []string{"hello"}, false, "none of DKIM; publish"},
		"several":     {"s", []string{record, record}, false, "the DNS has 2 records there"},
		"another key": {"s", []string{dkimkey.Record(other)}, false, "the record in the DNS is for a key of the kind k=ed25519"},
		"revoked":     {"s", []string{"v=DKIM1; p="}, false, "the key was revoked"},
		"no answer":   {"broken", nil, true, "warning: the DNS could not be asked for the record"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("EMAIL_DKIM_DOMAIN", "example.com")
			t.Setenv("EMAIL_DKIM_SELECTOR", tt.selector)
			t.Setenv("EMAIL_DKIM_KEY_FILE", path)
			t.Setenv("EMAIL_MAILERS", "same")
			t.Setenv("EMAIL_SAME_HOST", "localhost")
			s, _, err := settings.Load()
			if err != nil {
				t.Fatal(err)
			}
			z := &zone{records: map[string][]string{}}
			if tt.records != nil {
				z.records[dkimkey.Name(tt.selector, "example.com")] = tt.records
			}
			var out bytes.Buffer
			good := reportKeys(t.Context(), &out, z.resolver(t), s)
			if good != tt.good || !strings.Contains(out.String(), tt.want) || strings.Count(out.String(), "DKIM "+tt.selector+".") != 1 {
				t.Errorf("good: %t\n%s", good, out.String())
			}
			if strings.Contains(out.String(), "every user") {
				t.Error("the key is not readable by others")
			}
		})
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("EMAIL_DKIM_DOMAIN", "example.com")
	t.Setenv("EMAIL_DKIM_SELECTOR", "s")
	t.Setenv("EMAIL_DKIM_KEY_FILE", path)
	s, _, err := settings.Load()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	z := &zone{records: map[string][]string{"s._domainkey.example.com": {record}}}
	if !reportKeys(t.Context(), &out, z.resolver(t), s) || !strings.Contains(out.String(), "can be read by every user of this machine") {
		t.Error(out.String())
	}
	out.Reset()
	if !reportKeys(t.Context(), &out, z.resolver(t), settings.Default()) || out.Len() > 0 {
		t.Errorf("without keys: %s", out.String())
	}
}

// TestUnsignedWarnings: a sender of a domain that no key is for is warned of.
func TestUnsignedWarnings(t *testing.T) {
	for from, want := range map[string]string{
		"Ann <ann@mail.EXAMPLE.com>": "", "ann@bücher.example": "",
		"ann@example.org": "DEFAULT_FROM_EMAIL: no key is for example.org, so its mail is signed by example.com, which does not count for DMARC",
	} {
		t.Setenv("DEFAULT_FROM_EMAIL", from)
		s, _, err := settings.Load()
		if err != nil {
			t.Fatal(err)
		}
		if got := unsignedWarnings(s); got != nil {
			t.Errorf("without DKIM: %q", got)
		}
		s.DKIM.Domains = settings.List{"example.com", "bücher.example"}
		if got := strings.Join(unsignedWarnings(s), "\n"); got != want {
			t.Errorf("%s: %q", from, got)
		}
	}
}
