package settings

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestListeners(t *testing.T) {
	s, warnings := load(t, map[string]string{
		"EMAIL_SUBMISSION_ADDR":     "127.0.0.1:2525, smtps://[::1]:465,unix:///run/mailpouch/smtp.sock,\nlmtp+unix:///run/mailpouch/lmtp.sock, :0, localhost:0,",
		"EMAIL_SUBMISSION_CERTFILE": secretFile(t, "x"), "EMAIL_SUBMISSION_KEYFILE": secretFile(t, "x"),
	})
	want := Listeners{
		{Network: "tcp", Address: "127.0.0.1:2525"},
		{Network: "tcp", Address: "[::1]:465", TLS: true},
		{Network: "unix", Address: "/run/mailpouch/smtp.sock"},
		{Network: "unix", Address: "/run/mailpouch/lmtp.sock", LMTP: true},
		{Network: "tcp", Address: ":0"},
		{Network: "tcp", Address: "localhost:0"},
	}
	if got := s.Intake.Submission; !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := s.Intake.Submission.String(), "127.0.0.1:2525,smtps://[::1]:465,unix:///run/mailpouch/smtp.sock,lmtp+unix:///run/mailpouch/lmtp.sock,:0,localhost:0"; got != want {
		t.Errorf("written as %s", got)
	}
	compareLines(t, warnings, []string{"EMAIL_SUBMISSION_ADDR: has a line end in it, which has no effect"})
	for i, remote := range []bool{false, false, false, false, true, false} {
		if got := want[i].IsRemote(); got != remote {
			t.Errorf("%s can be reached by other machines: %v", want[i], got)
		}
	}
}

func TestIntake_Problems(t *testing.T) {
	for _, tt := range []struct {
		name string
		vars map[string]string
		want []string
	}{
		{"no port", map[string]string{"EMAIL_SUBMISSION_ADDR": "localhost"}, []string{`EMAIL_SUBMISSION_ADDR: "localhost" is not a host and a port ... smtps://, unix:// or lmtp+unix://`}},
		{"all that are wrong", map[string]string{"EMAIL_SUBMISSION_ADDR": "127.0.0.1:25,smtp://h:25,smtps://h,h:65536,a b:1"},
			[]string{`EMAIL_SUBMISSION_ADDR: "smtp://h:25" is not ... "smtps://h" is not ... "h:65536" is not ... "a b:1" is not`}},
		{"socket without a path", map[string]string{"EMAIL_SUBMISSION_ADDR": "unix://smtp.sock"}, []string{`EMAIL_SUBMISSION_ADDR: "unix://smtp.sock" needs the whole path of a socket`}},
		{"path too long", map[string]string{"EMAIL_SUBMISSION_ADDR": "unix:///" + strings.Repeat("x", 107)}, []string{`EMAIL_SUBMISSION_ADDR: ... of up to 107 bytes`}},
		{"twice", map[string]string{"EMAIL_SUBMISSION_ADDR": "127.0.0.1:25,127.0.0.1:25"}, []string{`EMAIL_SUBMISSION_ADDR: 127.0.0.1:25 is named twice`}},
		{"TLS without a certificate", map[string]string{"EMAIL_SUBMISSION_ADDR": "smtps://127.0.0.1:465"}, []string{`EMAIL_SUBMISSION_CERTFILE: smtps:// in EMAIL_SUBMISSION_ADDR needs a certificate here`}},
		{"certificate without its key", map[string]string{"EMAIL_SUBMISSION_CERTFILE": "/c", "EMAIL_API_KEYFILE": "/k"},
			[]string{`EMAIL_SUBMISSION_KEYFILE: the certificate in EMAIL_SUBMISSION_CERTFILE needs`, `EMAIL_API_CERTFILE: the key in EMAIL_API_KEYFILE needs`}},
		{"no network", map[string]string{"EMAIL_SUBMISSION_NETWORKS": "10.0.0.0/33, localhost, fe80::1%eth0"},
			[]string{`EMAIL_SUBMISSION_NETWORKS: "10.0.0.0/33" is neither ... "localhost" is neither ... "fe80::1%eth0" is neither`}},
		{"everybody", map[string]string{"EMAIL_SUBMISSION_NETWORKS": "0.0.0.0/0,::/0,::ffff:0.0.0.0/96"}, []string{`EMAIL_SUBMISSION_NETWORKS: "0.0.0.0/0" is everybody ... "::/0" is everybody ... "::ffff:0.0.0.0/96" is everybody`}},
		{"address and length", map[string]string{"EMAIL_SUBMISSION_NETWORKS": "10.1.2.3/16"}, []string{`EMAIL_SUBMISSION_NETWORKS: "10.1.2.3/16" is an address in the network 10.1.0.0/16: write the one or the other`}},
		{"limits", map[string]string{"EMAIL_SUBMISSION_CONNECTIONS": "0", "EMAIL_SUBMISSION_RECIPIENTS": "99", "EMAIL_SUBMISSION_TIMEOUT": "0s"},
			[]string{"EMAIL_SUBMISSION_CONNECTIONS: 0 is out of range", "EMAIL_SUBMISSION_RECIPIENTS: 99 is out of range", "EMAIL_SUBMISSION_TIMEOUT: 0s is too small"}},
		{"memory", map[string]string{"EMAIL_SUBMISSION_ADDR": "127.0.0.1:25", "EMAIL_SUBMISSION_MEMORY": "10MB"}, []string{"EMAIL_SUBMISSION_MEMORY: 10MB is less than one message may have, which is 25MB (EMAIL_MAX_MESSAGE_SIZE)"}},
		{"no address of the API", map[string]string{"EMAIL_API_ADDR": "https://0.0.0.0:8026"}, []string{`EMAIL_API_ADDR: "https://0.0.0.0:8026" is not a host and a port`}},
		{"no webhook", map[string]string{"EMAIL_WEBHOOK_URL": "https://h/x,ftp://u:hunter2@h"}, []string{"EMAIL_WEBHOOK_URL: number 2: a webhook's URL must be one such as https://example.com/hooks/mail$"}},
		{"private webhooks", map[string]string{"EMAIL_WEBHOOK_URL": "https://h/x, http://h/hunter2, https://10.1.2.3/"},
			[]string{"EMAIL_WEBHOOK_URL: number 2: a webhook's URL must begin with https:// ... (EMAIL_WEBHOOK_ALLOW_PRIVATE)$"}},
		{"private webhook", map[string]string{"EMAIL_WEBHOOK_URL": "https://10.1.2.3/"}, []string{"EMAIL_WEBHOOK_URL: a webhook's URL must not name this machine or a private network"}},
		{"secret without its beginning", map[string]string{"EMAIL_WEBHOOK_URL": "https://h", "EMAIL_WEBHOOK_SECRET": "hunter2"}, []string{`EMAIL_WEBHOOK_SECRET: a webhook's secret must begin with whsec_; echo "whsec_$(openssl rand -base64 32)" makes one`}},
		{"secret too short", map[string]string{"EMAIL_WEBHOOK_URL": "https://h", "EMAIL_WEBHOOK_SECRET": webhookPassword + ",whsec_aHVudGVyMg=="}, []string{"EMAIL_WEBHOOK_SECRET: number 2: a webhook's secret must be 24 to 64 bytes"}},
		{"webhooks without events", map[string]string{"EMAIL_WEBHOOK_URL": "https://h", "EMAIL_EVENTS": "false"}, []string{"EMAIL_EVENTS: is false, so there is nothing to post to EMAIL_WEBHOOK_URL"}},
		{"no such choice", map[string]string{"EMAIL_EVENTS": "on"}, []string{`EMAIL_EVENTS: "on" is not allowed; it has to be auto or true or false`}},
		{"a mailer of that name", map[string]string{"EMAIL_MAILERS": "webhook"}, []string{`EMAIL_MAILERS: "webhook" ... EMAIL_WEBHOOK_URL`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := lines(t, tt.vars)
			compareLines(t, got, tt.want)
			if strings.Contains(strings.Join(got, ""), password) {
				t.Errorf("a secret is shown: %q", got)
			}
		})
	}
}

// A worker does not take mail from other machines without keys or in clear text, and says all that is wrong at once.
func TestCheckWorker(t *testing.T) {
	file := secretFile(t, "x")
	keys := map[string]string{"EMAIL_API_KEYS_FILE": file}
	tls := map[string]string{"EMAIL_SUBMISSION_CERTFILE": file, "EMAIL_SUBMISSION_KEYFILE": file}
	missing := filepath.Join(t.TempDir(), "missing")
	for _, tt := range []struct {
		name string
		vars []map[string]string
		want []string
	}{
		{"nothing", nil, nil},
		{"SMTP on loopback with keys", []map[string]string{{"EMAIL_SUBMISSION_ADDR": "127.0.0.1:2525"}, keys}, nil},
		{"SMTP on loopback without keys", []map[string]string{{"EMAIL_SUBMISSION_ADDR": "127.0.0.1:2525"}},
			[]string{"EMAIL_SUBMISSION_ADDR: nobody could hand in mail at 127.0.0.1:2525: set EMAIL_API_KEYS_FILE ... or EMAIL_SUBMISSION_NETWORKS"}},
		{"a socket", []map[string]string{{"EMAIL_SUBMISSION_ADDR": "unix:///run/s"}}, nil},
		{"networks", []map[string]string{{"EMAIL_SUBMISSION_ADDR": "0.0.0.0:25", "EMAIL_SUBMISSION_NETWORKS": "10.0.0.0/8"}}, nil},
		{"keys in clear text", []map[string]string{{"EMAIL_SUBMISSION_ADDR": "0.0.0.0:587,192.0.2.1:587"}, keys},
			[]string{"EMAIL_SUBMISSION_ADDR: other machines can reach 0.0.0.0:587, and a key is never taken in clear text: set EMAIL_SUBMISSION_CERTFILE"}},
		{"keys over TLS", []map[string]string{{"EMAIL_SUBMISSION_ADDR": "0.0.0.0:587,smtps://:465"}, keys, tls}, nil},
		{"TLS without keys", []map[string]string{{"EMAIL_SUBMISSION_ADDR": "0.0.0.0:587"}, tls}, []string{"EMAIL_SUBMISSION_ADDR: nobody could hand in mail"}},
		{"HTTP on loopback", []map[string]string{{"EMAIL_API_ADDR": "localhost:8026"}, keys}, nil},
		{"HTTP without keys", []map[string]string{{"EMAIL_API_ADDR": "localhost:8026"}}, []string{"EMAIL_API_KEYS_FILE: EMAIL_API_ADDR takes mail from who has a key"}},
		{"HTTP without TLS", []map[string]string{{"EMAIL_API_ADDR": ":8026"}, keys}, []string{"EMAIL_API_ADDR: other machines can reach :8026 ... EMAIL_API_ALLOW_PLAIN"}},
		{"HTTP behind a proxy", []map[string]string{{"EMAIL_API_ADDR": ":8026", "EMAIL_API_ALLOW_PLAIN": "true"}, keys}, nil},
		{"HTTPS", []map[string]string{{"EMAIL_API_ADDR": ":8026", "EMAIL_API_CERTFILE": file, "EMAIL_API_KEYFILE": file}, keys}, nil},
		{"files that are missing", []map[string]string{{
			"EMAIL_SUBMISSION_ADDR": ":587", "EMAIL_SUBMISSION_CERTFILE": missing, "EMAIL_SUBMISSION_KEYFILE": missing,
			"EMAIL_API_ADDR": ":8026", "EMAIL_API_CERTFILE": missing, "EMAIL_API_KEYFILE": missing, "EMAIL_API_KEYS_FILE": missing,
		}}, []string{"EMAIL_SUBMISSION_CERTFILE: cannot be read", "EMAIL_SUBMISSION_KEYFILE: cannot be read", "EMAIL_API_CERTFILE: cannot be read", "EMAIL_API_KEYFILE: cannot be read", "EMAIL_API_KEYS_FILE: cannot be read"}},
		{"files that nothing uses", []map[string]string{{"EMAIL_API_KEYS_FILE": missing}}, nil},
		{"webhooks without a secret", []map[string]string{{"EMAIL_WEBHOOK_URL": "https://h"}}, []string{"EMAIL_WEBHOOK_SECRET: is not set: what is posted to EMAIL_WEBHOOK_URL has to be signed"}},
		{"a secret that cannot be read", []map[string]string{{"EMAIL_WEBHOOK_URL": "https://h", "EMAIL_WEBHOOK_SECRET_FILE": missing}}, []string{"EMAIL_WEBHOOK_SECRET_FILE: cannot be read"}},
		{"all at once", []map[string]string{{"EMAIL_HTTP_ADDR": ":8025", "EMAIL_SUBMISSION_ADDR": ":25", "EMAIL_API_ADDR": ":8026", "EMAIL_WEBHOOK_URL": "https://h"}},
			[]string{"EMAIL_HTTP_ADDR: other machines", "EMAIL_SUBMISSION_ADDR: nobody", "EMAIL_API_KEYS_FILE: ", "EMAIL_WEBHOOK_SECRET: "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			vars := map[string]string{}
			for _, some := range tt.vars {
				for name, value := range some {
					vars[name] = value
				}
			}
			s, _ := load(t, vars)
			err := s.CheckWorker()
			var got []string
			if err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			compareLines(t, got, tt.want)
		})
	}
}

func TestIntake_Warnings(t *testing.T) {
	for _, tt := range []struct {
		name string
		vars map[string]string
		want []string
	}{
		{"nothing takes mail", map[string]string{"EMAIL_SUBMISSION_NETWORKS": "::1", "EMAIL_SUBMISSION_TIMEOUT": "1m", "EMAIL_API_ALLOW_PLAIN": "true", "EMAIL_API_KEYS_FILE": "/x"},
			[]string{"EMAIL_SUBMISSION_NETWORKS: has no effect without EMAIL_SUBMISSION_ADDR", "EMAIL_SUBMISSION_TIMEOUT: has no effect", "EMAIL_API_ALLOW_PLAIN: has no effect without EMAIL_API_ADDR"}},
		{"nothing posts", map[string]string{"EMAIL_WEBHOOK_SECRET": webhookPassword, "EMAIL_WEBHOOK_ALLOW_PRIVATE": "true"},
			[]string{"EMAIL_WEBHOOK_SECRET: has no effect without EMAIL_WEBHOOK_URL", "EMAIL_WEBHOOK_ALLOW_PRIVATE: has no effect"}},
		{"no events", map[string]string{"EMAIL_EVENTS_SIZE": "1MB"}, []string{"EMAIL_EVENTS_SIZE: has no effect without EMAIL_EVENTS or EMAIL_WEBHOOK_URL"}},
		{"clear text in a private network", map[string]string{"EMAIL_WEBHOOK_URL": "http://b", "EMAIL_WEBHOOK_ALLOW_PRIVATE": "true"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, warnings := load(t, tt.vars)
			compareLines(t, warnings, tt.want)
		})
	}
}

// A program that queues may have the same environment, without the worker's files.
func TestIntake_producer(t *testing.T) {
	setenv(t, map[string]string{
		"EMAIL_SUBMISSION_ADDR": ":587", "EMAIL_SUBMISSION_CERTFILE": "/nowhere/c", "EMAIL_SUBMISSION_KEYFILE": "/nowhere/k", "EMAIL_API_ADDR": ":8026",
		"EMAIL_API_KEYS_FILE": "/nowhere/keys", "EMAIL_WEBHOOK_URL": "https://h", "EMAIL_WEBHOOK_SECRET_FILE": "/nowhere/s",
	})
	s, warnings, err := Loader{Producer: true}.Load()
	if err != nil || !s.Events.On() {
		t.Fatalf("events: %v, %v", s.Events.On(), err)
	}
	compareLines(t, warnings, []string{"EMAIL_WEBHOOK_SECRET_FILE: cannot be read"})
}

func TestEvents_On(t *testing.T) {
	for _, tt := range []struct {
		write, url string
		want       bool
	}{{"", "", false}, {"auto", "https://h", true}, {"TRUE", "", true}, {"false", "", false}, {"true", "https://h", true}} {
		s, _ := load(t, map[string]string{"EMAIL_EVENTS": tt.write, "EMAIL_WEBHOOK_URL": tt.url})
		if got := s.Events.On(); got != tt.want {
			t.Errorf("EMAIL_EVENTS=%q, EMAIL_WEBHOOK_URL=%q: %v", tt.write, tt.url, got)
		}
	}
}

// webhookPassword is a secret of the form that webhooks are signed with.
const webhookPassword = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3aHVudGVyMg=="

func TestWebhooksAreNotShown(t *testing.T) {
	const url = "https://ann:" + password + "@h.example/hooks/1?token=" + password
	s, warnings := load(t, map[string]string{"EMAIL_WEBHOOK_URL": url + " , https://i.example/", "EMAIL_WEBHOOK_SECRET": webhookPassword + ", " + webhookPassword})
	for how, text := range shown(t, []any{s, &s, Describe(s), warnings, s.Events.URLs, s.Events.Secret}) {
		if strings.Contains(text, password) || strings.Contains(text, webhookPassword[6:20]) {
			t.Errorf("%s shows a secret: %s", how, text)
		}
	}
	if got, want := s.Events.URLs.String(), "https://h.example/[redacted], https://i.example"; got != want {
		t.Errorf("shown as %s", got)
	}
	if got := s.Events.URLs.All(); len(got) != 2 || got[0] != url {
		t.Errorf("got %q", got)
	}
	if got := s.Events.Secret.All(); len(got) != 2 || got[1] != webhookPassword {
		t.Errorf("got %q", got)
	}
}

// What is wrong in a file of secrets when it is read again is kept out.
func TestWebhooks_Reload(t *testing.T) {
	path := secretFile(t, webhookPassword)
	s, _ := load(t, map[string]string{"EMAIL_WEBHOOK_URL": "https://h", "EMAIL_WEBHOOK_SECRET_FILE": path})
	write(t, path, "whsec_x")
	n, r := s.Reload()
	if len(r.Kept) != 1 || n.Events.Secret.Reveal() != webhookPassword {
		t.Errorf("a wrong secret is used: %+v", r)
	}
	const two = webhookPassword + "," + webhookPassword
	write(t, path, two+"\n")
	if n, r = s.Reload(); n.Events.Secret.Reveal() != two || len(r.Restart) > 0 || len(r.Changed) != 1 {
		t.Errorf("got %+v", r)
	}
}
