package settings

import (
	"strings"
	"testing"
)

func TestHTTP_CheckAccess(t *testing.T) {
	for _, tt := range []struct {
		name string
		http HTTP
		ok   bool
	}{
		{"the default", Default().HTTP, true},
		{"off", HTTP{Addr: HTTPOff}, true},
		{"localhost", HTTP{Addr: "localhost:8025"}, true},
		{"IPv6 loopback", HTTP{Addr: "[::1]:8025"}, true},
		{"another loopback", HTTP{Addr: "127.8.8.8:0"}, true},
		{"every interface", HTTP{Addr: ":8025"}, false},
		{"every interface, in digits", HTTP{Addr: "0.0.0.0:8025"}, false},
		{"every interface, IPv6", HTTP{Addr: "[::]:8025"}, false},
		{"one interface", HTTP{Addr: "192.0.2.1:8025"}, false},
		{"a name", HTTP{Addr: "mail.example.com:8025"}, false},
		{"with a password", HTTP{Addr: ":8025", Password: NewSecret("hunter2")}, true},
		{"with a token", HTTP{Addr: ":8025", Token: NewSecret("hunter2")}, true},
		{"with an empty password", HTTP{Addr: ":8025", Password: NewSecret("")}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.http.CheckAccess()
			if (err == nil) != tt.ok {
				t.Errorf("CheckAccess() = %v", err)
			}
			if err != nil && (!strings.HasPrefix(err.Error(), "EMAIL_HTTP_ADDR: ") || strings.Contains(err.Error(), "\n")) {
				t.Errorf("not one line of its variable: %v", err)
			}
		})
	}
}
