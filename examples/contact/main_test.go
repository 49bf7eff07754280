package main

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/settings"
)

func TestRun_health(t *testing.T) {
	t.Setenv("EMAIL_BACKEND", "dummy")
	t.Setenv("ADMINS", "ann@example.com")
	response, err := http.Get(strings.Replace(start(t), "/contact/", "/healthz", 1))
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("answer = %s", response.Status)
	}
}

func TestRun_problems(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	tests := []struct {
		name string
		env  map[string]string
		args []string
		want string
	}{
		{name: "no admins", env: map[string]string{"ADMINS": ""}, want: "ADMINS"},
		{name: "bad setting", env: map[string]string{"EMAIL_PORT": "99999"}, want: "EMAIL_PORT"},
		{name: "bad admin", env: map[string]string{"ADMINS": "ann@"}, want: "ADMINS"},
		{name: "unknown backend", env: map[string]string{"EMAIL_BACKEND": "quue"}, want: "queue"},
		{name: "bad Redis", env: map[string]string{"REDIS_URL": "http://localhost"}, want: "REDIS_URL"},
		{name: "address taken", env: map[string]string{"CONTACT_ADDR": taken.Addr().String()}, want: "address already in use"},
		{name: "unknown flag", args: []string{"-adr", ":8000"}, want: "-adr"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("EMAIL_BACKEND", "dummy")
			t.Setenv("ADMINS", "ann@example.com")
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			err := run(context.Background(), tt.args, make(lines, 100))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestNewLogger(t *testing.T) {
	var out strings.Builder
	log := newLogger(&out, settings.Log{Level: "warn", Format: "json"})
	log.Info("little")
	log.Warn("much")
	if got := out.String(); strings.Contains(got, "little") || !strings.Contains(got, `"msg":"much"`) {
		t.Errorf("logged %s", got)
	}
	out.Reset()
	newLogger(&out, settings.Log{Level: "trace", Format: "auto"}).Info("little")
	if got := out.String(); !strings.Contains(got, "msg=little") {
		t.Errorf("logged %s", got)
	}
}
