package main

import (
	"strings"
	"testing"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/mailer"
)

// On a machine without a domain name sendmail takes what it is given: addresses get the short name.
// The test gives no EMAIL_HOSTNAME, so it is about this machine, whatever its name.
func TestRaw_noDomain(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	t.Setenv("REDIS_URL", server.URL())
	t.Setenv("DEFAULT_FROM_EMAIL", "")
	for _, name := range []string{"", "vm", "[192.0.2.1]"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("EMAIL_HOSTNAME", name)
			for _, tt := range []struct{ args, in string }{
				{"root", "Subject: x\n\nhello\n"},
				{"-FCronDaemon -i -B8BITMIME -oem -fcron root", "From: root (Cron Daemon)\nTo: root\nSubject: x\n\nhello\n"},
				{"-t", "To: root, ann@example.com\nCc: Bob <bob>\n\nhello\n"},
				{"ann@example.com", "hello\n"},
				{"-f <> ann@example.com", "hello\n"},
			} {
				if got := enqueue(t, tt.in, append([]string{"raw"}, strings.Fields(tt.args)...)...); got != (result{}) {
					t.Fatalf("%s: %+v", tt.args, got)
				}
				all := takeQueued(t, server, "default")
				if len(all) != 1 {
					t.Fatalf("%s: %d messages", tt.args, len(all))
				}
				for _, address := range append(all[0].to, all[0].from) {
					local, domain, _ := strings.Cut(address, "@")
					if address != "" && (local == "" || domain == "" || name != "" && domain != name && domain != "example.com") {
						t.Errorf("%s: from %q to %q", tt.args, all[0].from, all[0].to)
					}
				}
				if strings.Contains(all[0].data, "@>") || strings.Contains(all[0].data, "@,") || !strings.Contains(all[0].data, "\r\nMessage-ID: <") {
					t.Errorf("%s:\n%s", tt.args, all[0].data)
				}
			}
		})
	}
}

// The name without a domain is the one that Message-IDs have.
func TestApp_qualified(t *testing.T) {
	for _, tt := range []struct{ hostname, want string }{
		{"app.example.com", "root@app.example.com"}, {"vm", "root@vm"}, {"no domain", "root@localhost"},
		{"", "root@" + (mailer.Defaults{}).Domain()},
	} {
		a := &app{defaults: mailer.Defaults{Hostname: tt.hostname}}
		if got := a.qualified("root"); got != tt.want {
			t.Errorf("on a machine named %q: %s, want %s", tt.hostname, got, tt.want)
		}
	}
}
