package backends

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/internal/hostname"
	"github.com/mailpouch/mailpouch/settings"
)

// hosts is a resolver with the addresses of names and the names of addresses.
type hosts map[string][]string

func (h hosts) LookupHost(_ context.Context, host string) ([]string, error) { return h.find(host) }
func (h hosts) LookupAddr(_ context.Context, addr string) ([]string, error) { return h.find(addr) }

func (h hosts) find(key string) ([]string, error) {
	if found, ok := h[key]; ok {
		return found, nil
	}
	return nil, errors.New("no such host")
}

func TestFullName(t *testing.T) {
	for _, tt := range []struct {
		name  string
		short string
		hosts hosts
		want  string
	}{
		{"full already", "web1.example.com", nil, "web1.example.com"},
		{"dot at the end", "web1.example.com.", nil, "web1.example.com"},
		{"by its address", "web1", hosts{"web1": {"192.0.2.1"}, "192.0.2.1": {"web1.example.com."}}, "web1.example.com"},
		{"short name first", "web1", hosts{"web1": {"127.0.1.1"}, "127.0.1.1": {"web1", "Web1.example.com"}}, "Web1.example.com"},
		{"second address", "web1", hosts{"web1": {"192.0.2.1", "192.0.2.2"}, "192.0.2.2": {"web1.example.com"}}, "web1.example.com"},
		{"somebody else's", "web1", hosts{"web1": {"192.0.2.1"}, "192.0.2.1": {"gw.example.net"}}, ""},
		{"no domain", "web1", hosts{"web1": {"172.17.0.2"}, "172.17.0.2": {"web1"}}, ""},
		{"no address", "web1", nil, ""},
		{"outside ASCII", "bücher.example", nil, "xn--bcher-kva.example"},
		{"no host name", "a b.example", nil, ""},
		{"no host name by its address", "web1", hosts{"web1": {"192.0.2.1"}, "192.0.2.1": {"web1.-x.example"}}, ""},
		{"long label", strings.Repeat("a", 64) + ".example", nil, ""},
		{"longest label", strings.Repeat("a", 63) + ".example", nil, strings.Repeat("a", 63) + ".example"},
		{"long name", strings.Repeat("a.", 128) + "a", nil, ""},
		{"all letters", "azAZ09-_.example", nil, "azAZ09-_.example"},
		{"empty", "", nil, ""},
		{"control character", "web1\r\n.example", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := fullName(t.Context(), tt.short, tt.hosts); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestHostname(t *testing.T) {
	s := settings.Default()
	s.Message.Hostname = "bücher.example"
	if got := Hostname(t.Context(), s); got != "xn--bcher-kva.example" {
		t.Errorf("got %q", got)
	}
	// Whatever this machine is called, the answer may be used, and comes although
	// there is no time to ask anybody.
	s.Message.Hostname = ""
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := Hostname(ctx, s); got != "" && !hostname.IsASCII(got) {
		t.Errorf("%q is no host name", got)
	}
}
